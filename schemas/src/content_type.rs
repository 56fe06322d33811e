//! The two encodings a body may have, and how they are told apart.

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentType {
    /// `application/json`
    Json,
    /// `application/cbor`
    Cbor,
}

impl ContentType {
    /// The media type, as in the header `Content-Type`.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Cbor => "application/cbor",
        }
    }

    /// Reads a `Content-Type` header; parameters such as `charset` are ignored.
    pub fn parse(value: &str) -> Option<Self> {
        let media_type = value.split(';').next().unwrap_or_default().trim();
        [Self::Json, Self::Cbor]
            .into_iter()
            .find(|kind| media_type.eq_ignore_ascii_case(kind.mime()))
    }

    /// What a body without `Content-Type` is: CBOR if its first byte is above 0x7f, as that of every
    /// CBOR map is, else JSON. So whoever types something by hand reads the error as text.
    pub fn detect(body: &[u8]) -> Self {
        match body.first() {
            Some(0x80..) => Self::Cbor,
            _ => Self::Json,
        }
    }
}

impl std::fmt::Display for ContentType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.mime())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_read_in_any_case_and_without_parameters() {
        assert_eq!(
            ContentType::parse("Application/JSON; charset=utf-8"),
            Some(ContentType::Json)
        );
        assert_eq!(
            ContentType::parse("application/cbor"),
            Some(ContentType::Cbor)
        );
        assert_eq!(ContentType::parse("text/plain"), None);
    }

    #[test]
    fn a_brace_after_white_space_means_json() {
        assert_eq!(ContentType::detect(b" \r\n{}"), ContentType::Json);
        assert_eq!(ContentType::detect(b"\xa1"), ContentType::Cbor);
        assert_eq!(ContentType::detect(b""), ContentType::Json);
    }
}
