//! Who a NATS address says it is: `nats://USER:PASSWORD@HOST` or `nats://TOKEN@HOST`.
//!
//! The client library takes such an address and leaves out who it names, so both sides read that
//! here and say it themselves.

use std::fmt;

use percent_encoding::percent_decode_str;

/// What an address proves itself with.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// A user with a password.
    User {
        /// Its name.
        name: String,
        /// Its password.
        password: String,
    },
    /// A token.
    Token(String),
}

impl Login {
    /// The login of the first of the comma-separated `addresses` that has one.
    pub fn of(addresses: &str) -> Option<Self> {
        addresses.split(',').find_map(|address| {
            let (_, rest) = address.split_once("://")?;
            let host_ends = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (login, _) = rest[..host_ends].rsplit_once('@')?;
            Some(match login.split_once(':') {
                Some((name, password)) => Self::User {
                    name: decoded(name),
                    password: decoded(password),
                },
                None => Self::Token(decoded(login)),
            })
        })
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User { .. } => "Login::User(..)",
            Self::Token(_) => "Login::Token(..)",
        })
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_read_from_the_address_and_never_shown() {
        let user = |name: &str, password: &str| {
            Some(Login::User {
                name: name.to_owned(),
                password: password.to_owned(),
            })
        };
        let read = Login::of;
        assert_eq!(read("nats://w:p%40ss@127.0.0.1:4222"), user("w", "p@ss"));
        assert_eq!(read("nats://a:4222, tls://w:p@b:4222"), user("w", "p"));
        assert_eq!(read("nats://s3cret@h"), Some(Login::Token("s3cret".into())));
        assert_eq!(read("nats://127.0.0.1:4222"), None);
        assert_eq!(read("ws://h/path@x"), None);
        assert_eq!(read("127.0.0.1:4222"), None);
        let shown = format!("{:?}", read("nats://w:hidden@h"));
        assert!(!shown.contains("hidden"), "{shown}");
    }
}
