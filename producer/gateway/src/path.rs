//! What a path names: a model, perhaps a version, and in v1 a verb behind a colon.

use axum::http::{Method, Uri};
use inferq_schemas::ModelName;

use crate::refusal::Refusal;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) model: ModelName,
    /// `None` for the default one.
    pub(crate) version: Option<u64>,
}

impl Target {
    /// From whole path segments, as in v2.
    ///
    /// # Errors
    /// 404, since nothing can be served under such a name or number.
    pub(crate) fn new(model: &str, version: Option<&str>) -> Result<Self, Refusal> {
        let model = ModelName::new(model)
            .map_err(|error| Refusal::not_found(format!("no such model: {error}")))?;
        let version = version.map(|version| number(&model, version)).transpose()?;
        Ok(Self { model, version })
    }

    /// From the segments of a v1 POST, the last of which ends in `:predict`.
    ///
    /// # Errors
    /// 400 without that verb, 404 as in [`Target::new`].
    pub(crate) fn predict(
        model: &str,
        version: Option<&str>,
        method: &Method,
        uri: &Uri,
    ) -> Result<Self, Refusal> {
        let malformed = || {
            Refusal::bad_request(format!(
                "Malformed request: {method} {}; this gateway takes `:predict`",
                uri.path()
            ))
        };
        let last = version.unwrap_or(model);
        let last = last.strip_suffix(":predict").ok_or_else(malformed)?;
        match version {
            Some(_) => Self::new(model, Some(last)),
            None => Self::new(last, None),
        }
    }
}

fn number(model: &ModelName, version: &str) -> Result<u64, Refusal> {
    let digits = version.bytes().all(|byte| byte.is_ascii_digit());
    let number = version.parse().ok().filter(|_| digits);
    number.ok_or_else(|| {
        Refusal::not_found(format!(
            "model `{model}` has no version `{version}`: versions are numbers"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;

    fn predict(model: &str, version: Option<&str>) -> Result<(String, Option<u64>), StatusCode> {
        let uri = Uri::from_static("/v1/models/some:verb");
        Target::predict(model, version, &Method::POST, &uri)
            .map(|target| (target.model.to_string(), target.version))
            .map_err(|refusal| refusal.status())
    }

    #[test]
    fn the_verb_belongs_to_the_last_segment() {
        assert_eq!(
            predict("digits:predict", None),
            Ok(("digits".to_owned(), None))
        );
        assert_eq!(
            predict("digits", Some("12:predict")),
            Ok(("digits".to_owned(), Some(12)))
        );
    }

    #[test]
    fn a_path_without_predict_is_malformed() {
        for (model, version) in [
            ("digits", None),
            ("digits:classify", None),
            ("digits:Predict", None),
            ("digits:predict:", None),
            ("digits:predict", Some("1")),
            ("digits", Some("1:regress")),
        ] {
            assert_eq!(
                predict(model, version),
                Err(StatusCode::BAD_REQUEST),
                "{model} {version:?}"
            );
        }
    }

    #[test]
    fn a_name_or_number_that_cannot_be_served_is_not_found() {
        for (model, version) in [
            (":predict", None),
            ("Digits:predict", None),
            ("digits.>:predict", None),
            ("a:b:predict", None),
            ("digits", Some(":predict")),
            ("digits", Some("latest:predict")),
            ("digits", Some("+1:predict")),
            ("digits", Some("99999999999999999999:predict")),
        ] {
            assert_eq!(
                predict(model, version),
                Err(StatusCode::NOT_FOUND),
                "{model} {version:?}"
            );
        }
    }

    #[test]
    fn a_version_is_optional_in_v2() {
        let target = |version| Target::new("digits", version).map(|target| target.version);
        assert_eq!(target(None).expect("a good name"), None);
        assert_eq!(target(Some("3")).expect("a good name"), Some(3));
    }
}
