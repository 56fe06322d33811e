//! Failure -> HTTP status and `{"error": "..."}`, the same for both protocols.

use axum::{
    Json,
    extract::rejection::{BytesRejection, PathRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use inferq::{CallError, ModelError};
use inferq_schemas::ErrorCode;
use serde_json::json;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn method(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    #[cfg(test)]
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }
}

/// The status for a code of the wire. They are the same numbers, but for the deadline: 408 on HTTP
/// blames the client for sending slowly and lets it repeat unasked; TensorFlow Serving answers 504.
fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadInput => StatusCode::BAD_REQUEST,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::Deadline => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::Conflict => StatusCode::CONFLICT,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::Overloaded => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Model => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        let status = status(error.code());
        match error {
            // The worker's own words; the code is in the status.
            CallError::Failed(failure) => Self::new(status, failure.message),
            error => Self::new(status, error.to_string()),
        }
    }
}

impl From<ModelError> for Refusal {
    fn from(error: ModelError) -> Self {
        Self::new(status(error.code()), error.to_string())
    }
}

impl From<BytesRejection> for Refusal {
    fn from(rejection: BytesRejection) -> Self {
        let status = rejection.status();
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            let told =
                "the body is larger than this gateway takes; send fewer rows, or raise --max-body";
            return Self::new(status, told);
        }
        Self::new(status, rejection.body_text())
    }
}

impl From<PathRejection> for Refusal {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.message }))).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inferq_schemas::Failure;

    #[test]
    fn every_code_keeps_its_number_but_the_deadline() {
        for code in ErrorCode::ALL {
            let wanted = match code {
                ErrorCode::Deadline => 504,
                other => other.as_u16(),
            };
            let error = CallError::Failed(Failure::new(code, "why"));
            assert_eq!(Refusal::from(error).status().as_u16(), wanted);
        }
    }

    #[test]
    fn the_workers_message_is_passed_on_word_for_word() {
        let told = "instances[0]: 63 values, the model's input `input` takes 64";
        let error = CallError::Failed(Failure::new(ErrorCode::BadInput, told));
        assert_eq!(Refusal::from(error), Refusal::bad_request(told));
    }

    #[test]
    fn nobody_there_and_nobody_in_time_are_told_apart() {
        let model = inferq::ModelName::new("digits").expect("a good name");
        let nobody = CallError::NoWorker {
            model: model.clone(),
        };
        let late = CallError::Deadline {
            model,
            after: std::time::Duration::from_secs(5),
        };
        assert_eq!(
            Refusal::from(nobody).status(),
            StatusCode::SERVICE_UNAVAILABLE
        );
        assert_eq!(Refusal::from(late).status(), StatusCode::GATEWAY_TIMEOUT);
    }
}
