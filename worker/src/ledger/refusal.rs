//! Tells a caller why it gets no answer, where there is no job that could have an outcome.

use inferq_schemas::headers::names;
use inferq_schemas::{ContentType, Failure};
use tracing::warn;

use super::{Ledger, header_map};

impl Ledger {
    /// Sends `failure` to the address `reply`. A refusal that is lost is noted: whoever waits asks again.
    pub async fn refuse(&self, reply: &str, failure: &Failure, content_type: ContentType) {
        let headers = header_map([
            (names::SERVICE_ERROR, failure.header_message()),
            (names::SERVICE_ERROR_CODE, failure.code.as_u16().to_string()),
            (names::CONTENT_TYPE, content_type.mime().to_owned()),
        ]);
        let body = failure.body(content_type);
        let client = self.client();
        let sent = client.publish_with_headers(reply.to_owned(), headers, body);
        if let Err(error) = sent.await {
            warn!(%error, "a refusal was not delivered");
        }
    }
}
