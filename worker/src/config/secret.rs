//! Addresses that may carry a password, and so never show themselves whole.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// A URL that may hold a user and a password. `Debug` prints nothing of it, `Display` leaves the secrets out.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// The whole URL, for the client library that connects with it and for nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The part before `://`, or nothing if there is none.
    pub fn scheme(&self) -> &str {
        self.0.split_once("://").map_or("", |(scheme, _)| scheme)
    }
}

impl FromStr for SecretUrl {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretUrl(..)")
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, url) in self.0.split(',').enumerate() {
            if place > 0 {
                formatter.write_str(",")?;
            }
            let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
            // The last `@`: a password may hold one itself. The query may name a password too.
            let address = rest.rsplit_once('@').map_or(rest, |(_, address)| address);
            let address = address.split('?').next().unwrap_or_default();
            if scheme.is_empty() {
                formatter.write_str(address)?;
            } else {
                write!(formatter, "{scheme}://{address}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::SecretUrl;

    fn url(text: &str) -> SecretUrl {
        text.parse().expect("any text is taken")
    }

    #[test]
    fn neither_debug_nor_display_shows_a_password() {
        for text in [
            "redis://user:hunter2@cache:6379/0",
            "redis://:hunter2@x@cache:6379",
            "unix:///run/redis.sock?pass=hunter2",
            "nats://a:hunter2@one:4222,nats://b:hunter2@two:4222",
            "hunter2@one:4222",
        ] {
            let secret = url(text);
            assert!(!format!("{secret:?}").contains("hunter2"), "{text}");
            assert!(!secret.to_string().contains("hunter2"), "{text}");
            assert_eq!(secret.expose(), text);
        }
    }

    #[test]
    fn the_address_stays_readable() {
        assert_eq!(
            url("redis://user:secret@cache:6379/0").to_string(),
            "redis://cache:6379/0"
        );
        assert_eq!(
            url("nats://a:b@one:4222,nats://two:4222").to_string(),
            "nats://one:4222,nats://two:4222"
        );
        assert_eq!(
            url("unix:///run/redis.sock").to_string(),
            "unix:///run/redis.sock"
        );
    }
}
