//! Answers of AWS that are whole, or none: EC2's XML that was cut off parses as an answer with less in it, and a short list
//! of instance types must not read as "there is no such type". Called by `client`; an answer that ends too early is a
//! broken connection, which the SDK tries again.

use std::fmt;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;

/// The SDK's own HTTP client, proxies from the environment included, with whole answers.
pub(super) fn client() -> SharedHttpClient {
    answers(aot_aws::http_client())
}

/// Another client's answers, looked at.
pub(super) fn answers(inner: SharedHttpClient) -> SharedHttpClient {
    SharedHttpClient::new(Whole(inner))
}

#[derive(Debug)]
struct Whole(SharedHttpClient);

impl HttpClient for Whole {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Checked(self.0.http_connector(settings, components)))
    }
}

#[derive(Debug)]
struct Checked(SharedHttpConnector);

impl HttpConnector for Checked {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move { check(answer.await?).await })
    }
}

async fn check(mut answer: HttpResponse) -> Result<HttpResponse, ConnectorError> {
    let body = ByteStream::new(answer.take_body());
    let bytes = body
        .collect()
        .await
        .map_err(|error| ConnectorError::io(error.into()))?
        .into_bytes();
    if !is_whole(&bytes) {
        return Err(ConnectorError::io(CutOff.into()));
    }
    *answer.body_mut() = SdkBody::from(bytes);
    Ok(answer)
}

/// Why an answer was not taken.
#[derive(Debug)]
struct CutOff;

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer is cut off")
    }
}

impl std::error::Error for CutOff {}

/// Whether XML ends with the end of the element that it begins with. Anything else is for its own reader to judge.
fn is_whole(body: &[u8]) -> bool {
    let text = body.trim_ascii();
    if !text.starts_with(b"<") {
        return true;
    }
    match root(text) {
        Some((name, true)) => text.ends_with(&[b"</", name, b">"].concat()),
        Some((_, false)) => text.ends_with(b"/>"),
        None => false,
    }
}

/// Name of the first element, and whether it has an end tag of its own; `None` when the text ends before that is known.
fn root(mut text: &[u8]) -> Option<(&[u8], bool)> {
    loop {
        let end = text.iter().position(|byte| *byte == b'>')?;
        let tag = &text[1..end];
        if tag.starts_with(b"?") || tag.starts_with(b"!") {
            let next = text[end + 1..].iter().position(|byte| *byte == b'<')?;
            text = &text[end + 1 + next..];
            continue;
        }
        let name = tag.split(|byte| byte.is_ascii_whitespace() || *byte == b'/');
        return Some((name.into_iter().next()?, !tag.ends_with(b"/")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Replay;
    use proptest::prelude::*;

    const ANSWER: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<DescribeXResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><a><b/></a></DescribeXResponse>\n";

    #[test]
    fn whole_answers_are_taken_and_what_is_not_xml_is_not_judged() {
        for text in [
            ANSWER,
            "",
            "{\"cut\":",
            "<a/>",
            "<a></a>",
            "<?xml?><a b='c'/>\n",
        ] {
            assert!(is_whole(text.as_bytes()), "{text}");
        }
        for text in ["<", "<a", "<a>", "<a><b></a", "<?xml?>", "<a></b>"] {
            assert!(!is_whole(text.as_bytes()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_cut_goes_unseen(at in 1..ANSWER.trim_end().len()) {
            prop_assert!(!is_whole(&ANSWER.as_bytes()[..at]));
        }
    }

    #[tokio::test]
    async fn a_cut_answer_is_asked_for_again() {
        let fake = Replay::default();
        fake.cut(
            "DescribeVpcs",
            "<vpcSet><item><vpcId>vpc-1</vpcId></item></vpcSet>",
        );
        fake.ok(
            "DescribeVpcs",
            "<vpcSet><item><vpcId>vpc-1</vpcId></item></vpcSet>",
        );
        let client = fake.client().await;
        let answer = client.describe_vpcs().send().await.unwrap();
        assert_eq!(answer.vpcs().len(), 1);
        assert_eq!(fake.asked("DescribeVpcs").len(), 2);
    }
}
