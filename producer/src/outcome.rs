//! How a job ended, and what it answered.

use std::{borrow::Cow, time::SystemTime};

use async_nats::HeaderMap;
use bytes::Bytes;
use inferq_schemas::{
    ContentType, Failure, Form, InferResponse, Limits, OutcomeHeaders, RequestError, Status,
    headers,
};
use serde_json::Value;

/// The one outcome of a job, or the answer to a call.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What the outcome says about itself: who wrote it, how it ended, on which attempt.
    pub headers: OutcomeHeaders,
    /// The encoded response, or `{"error": ..., "code": ...}`.
    pub body: Bytes,
    /// When it was stored; `None` for an answer that came directly.
    pub stored: Option<SystemTime>,
    /// Its number in the stream of outcomes; `None` for an answer that came directly. The one that
    /// replaces it, after a replay, has a higher one.
    pub sequence: Option<u64>,
}

impl Outcome {
    /// How the job ended.
    pub fn status(&self) -> Status {
        self.headers.status
    }

    /// Did it end with an answer?
    pub fn is_ok(&self) -> bool {
        self.headers.status == Status::Ok
    }

    /// Why there is no answer. The body has the whole message, the header a shortened one.
    pub fn failure(&self) -> Option<Failure> {
        if self.is_ok() {
            return None;
        }
        let whole = Failure::from_body(&self.body, self.headers.content_type);
        whole.or_else(|| self.headers.failure.clone())
    }

    /// The answer as tensors.
    ///
    /// # Errors
    /// If the body is not a response in tensor form, such as `predictions` or a failure.
    pub fn response(&self) -> Result<InferResponse, RequestError> {
        InferResponse::decode(&self.body, self.headers.content_type, &Limits::default())
    }

    /// The answer or failure as a JSON value, whatever it travelled as; `None` if it is neither.
    pub fn json(&self) -> Option<Value> {
        match self.headers.content_type {
            ContentType::Json => serde_json::from_slice(&self.body).ok(),
            ContentType::Cbor => {
                let json = match self.failure() {
                    Some(failure) => failure.body(ContentType::Json),
                    None => self
                        .response()
                        .ok()?
                        .encode(ContentType::Json, Form::Tensors)
                        .ok()?,
                };
                serde_json::from_slice(&json).ok()
            }
        }
    }

    /// The answer or failure as JSON text, for people.
    pub fn text(&self) -> Cow<'_, str> {
        match self.headers.content_type {
            ContentType::Json => String::from_utf8_lossy(&self.body),
            ContentType::Cbor => match self.json() {
                Some(json) => Cow::Owned(json.to_string()),
                None => Cow::Owned(format!("<{} bytes of CBOR>", self.body.len())),
            },
        }
    }

    /// Reads a message; says what is wrong with one that is not an outcome.
    pub(crate) fn read(headers: Option<&HeaderMap>, body: Bytes) -> Result<Self, String> {
        let headers = headers.ok_or("it has no headers")?;
        let headers =
            OutcomeHeaders::parse(pairs(headers)).map_err(|problem| problem.to_string())?;
        Ok(Self {
            headers,
            body,
            stored: None,
            sequence: None,
        })
    }
}

/// The failure of an answer that is no outcome, as any micro service may send one.
pub(crate) fn service_error(headers: Option<&HeaderMap>) -> Option<Failure> {
    let mut code = None;
    let mut message = "the service gives no reason";
    for (name, value) in pairs(headers?) {
        if name.eq_ignore_ascii_case(headers::names::SERVICE_ERROR_CODE) {
            code = inferq_schemas::ErrorCode::from_u16(value.parse().ok()?);
        } else if name.eq_ignore_ascii_case(headers::names::SERVICE_ERROR) {
            message = value;
        }
    }
    Some(Failure::new(code?, message))
}

/// Name and value of every header.
pub(crate) fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers.iter().flat_map(|(name, values)| {
        values
            .iter()
            .map(move |value| (name.as_ref(), value.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use inferq_schemas::ErrorCode;

    fn headers(of: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in of {
            map.append(*name, *value);
        }
        map
    }

    fn refused() -> HeaderMap {
        headers(&[
            ("infer-job-id", "j1"),
            ("INFER-STATUS", "error"),
            ("Infer-Worker", "w1"),
            ("Infer-Attempt", "1"),
            ("Content-Type", "application/json"),
            ("Nats-Service-Error", "short"),
            ("Nats-Service-Error-Code", "400"),
        ])
    }

    #[test]
    fn the_whole_message_comes_from_the_body_and_else_from_the_header() {
        let body = Failure::new(ErrorCode::BadInput, "the long story").body(ContentType::Json);
        let told = |body: Bytes| {
            let outcome = Outcome::read(Some(&refused()), body).expect("a complete outcome");
            outcome.failure().expect("it is an error").message
        };
        assert_eq!(told(body), "the long story");
        assert_eq!(told(Bytes::new()), "short");
    }

    #[test]
    fn a_message_without_our_headers_is_named_as_such() {
        let error = Outcome::read(Some(&headers(&[])), Bytes::new()).expect_err("nothing is there");
        assert!(error.contains("Infer-"), "{error}");
        assert!(Outcome::read(None, Bytes::new()).is_err());
    }

    #[test]
    fn an_error_of_any_micro_service_is_understood() {
        let error = headers(&[
            ("nats-service-error-code", "503"),
            ("Nats-Service-Error", "full"),
        ]);
        let failure = service_error(Some(&error)).expect("both are there");
        assert_eq!(
            (failure.code, failure.message.as_str()),
            (ErrorCode::Unavailable, "full")
        );
        assert_eq!(service_error(Some(&headers(&[]))), None);
    }
}
