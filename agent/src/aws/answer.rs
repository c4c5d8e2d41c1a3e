//! What AWS answers: the value of a secret, or why there is none. Pure. Of a value nothing gets into a refusal.

use aot_proto::v1::AwsService;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// Longest part of a message of AWS that is passed on.
const MESSAGE_CHARS: usize = 300;

/// An answer as it came.
#[derive(Clone)]
pub(super) struct HttpAnswer {
    pub status: u16,
    /// `x-amzn-errortype`.
    pub error_type: String,
    /// `date`.
    pub date: String,
    pub body: Vec<u8>,
}

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AwsRefusal {
    pub kind: RefusalKind,
    /// AWS's word for it, such as `AccessDeniedException`; the status where there is none.
    pub code: String,
    /// AWS's message, in one harmless line; may be empty.
    pub message: String,
    /// When AWS said so, in seconds since 1970.
    pub at: Option<i64>,
}

/// What a refusal means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RefusalKind {
    /// The role may not read it.
    Denied,
    /// The role may not use the key that it is sealed with.
    NoKey,
    /// There is none of that name, or no such version of it.
    NotFound,
    /// Too many ask.
    Throttled,
    /// Something is wrong with AWS for the moment, or the credentials have just expired.
    Passing,
    /// The time of the signature is not AWS's.
    Time,
    /// Anything else.
    Other,
    /// It is not of its form.
    Garbled,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ParameterAnswer {
    parameter: ParameterPart,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ParameterPart {
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SecretAnswer {
    secret_string: Option<String>,
    secret_binary: Option<String>,
}

#[derive(Deserialize, Default)]
struct ErrorAnswer {
    #[serde(rename = "__type", default)]
    code: String,
    #[serde(default, alias = "Message")]
    message: Option<String>,
}

/// The value in an answer: text, or bytes where the secret is binary.
///
/// # Errors
/// When AWS refused, or what came is not an answer.
pub(super) fn value(service: AwsService, answer: &HttpAnswer) -> Result<Vec<u8>, AwsRefusal> {
    if answer.status != 200 {
        return Err(refusal(answer));
    }
    let found = match service {
        AwsService::SecretsManager => secret(&answer.body),
        AwsService::Ssm | AwsService::Unspecified => parameter(&answer.body),
    };
    found.ok_or_else(|| AwsRefusal {
        kind: RefusalKind::Garbled,
        code: String::new(),
        message: String::new(),
        at: None,
    })
}

fn parameter(body: &[u8]) -> Option<Vec<u8>> {
    let answer: ParameterAnswer = serde_json::from_slice(body).ok()?;
    Some(answer.parameter.value.into_bytes())
}

fn secret(body: &[u8]) -> Option<Vec<u8>> {
    let answer: SecretAnswer = serde_json::from_slice(body).ok()?;
    match (answer.secret_string, answer.secret_binary) {
        (Some(text), _) => Some(text.into_bytes()),
        (None, Some(bytes)) => STANDARD.decode(bytes).ok(),
        (None, None) => None,
    }
}

fn refusal(answer: &HttpAnswer) -> AwsRefusal {
    let said: ErrorAnswer = serde_json::from_slice(&answer.body).unwrap_or_default();
    // `com.amazonaws.ssm#ParameterNotFound`, in a header also with a URL behind it.
    let named = [&said.code, &answer.error_type].map(|text| {
        let name = text.split(':').next().unwrap_or_default();
        let name = name.rsplit('#').next().unwrap_or_default();
        let is_good = |c: &char| c.is_ascii_alphanumeric();
        name.chars().filter(is_good).take(80).collect::<String>()
    });
    let code = named.into_iter().find(|name| !name.is_empty());
    let message = harmless(&said.message.unwrap_or_default());
    let at = OffsetDateTime::parse(&answer.date, &Rfc2822).ok();
    AwsRefusal {
        kind: kind(answer.status, code.as_deref().unwrap_or_default(), &message),
        code: code.unwrap_or_else(|| format!("HTTP {}", answer.status)),
        message,
        at: at.map(OffsetDateTime::unix_timestamp),
    }
}

/// By the names that both services have for errors, and those of AWS's services in general.
fn kind(status: u16, code: &str, message: &str) -> RefusalKind {
    let is_about_key = || {
        let message = message.to_ascii_lowercase();
        message.contains("kms")
    };
    match code {
        "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" if is_about_key() => {
            RefusalKind::NoKey
        }
        "KMSAccessDeniedException" | "InvalidKeyId" | "DecryptionFailure" => RefusalKind::NoKey,
        "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" => RefusalKind::Denied,
        "ParameterNotFound" | "ParameterVersionNotFound" | "ResourceNotFoundException" => {
            RefusalKind::NotFound
        }
        "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "LimitExceededException" => RefusalKind::Throttled,
        "InvalidSignatureException"
        | "RequestTimeTooSkewed"
        | "RequestExpired"
        | "RequestInTheFuture" => RefusalKind::Time,
        "ExpiredTokenException"
        | "ExpiredToken"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InternalServiceError"
        | "InternalServerError"
        | "ServiceUnavailable"
        | "RequestTimeout"
        | "RequestTimeoutException" => RefusalKind::Passing,
        _ if status == 429 => RefusalKind::Throttled,
        _ if status >= 500 => RefusalKind::Passing,
        _ => RefusalKind::Other,
    }
}

/// One line without what moves a cursor.
fn harmless(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut line: String = text.chars().take(MESSAGE_CHARS).map(plain).collect();
    if text.chars().nth(MESSAGE_CHARS).is_some() {
        line.push('…');
    }
    line.trim().trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(status: u16, body: &str) -> HttpAnswer {
        HttpAnswer {
            status,
            error_type: String::new(),
            date: "Tue, 01 Dec 2026 11:00:00 GMT".to_owned(),
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn values_are_as_they_are_and_what_has_none_shows_nothing() {
        let ssm = |body: &str| value(AwsService::Ssm, &answer(200, body));
        let manager = |body: &str| value(AwsService::SecretsManager, &answer(200, body));
        assert_eq!(
            ssm(r#"{"Parameter": {"Name": "/a", "Value": "hunter2\n"}}"#),
            Ok(b"hunter2\n".to_vec())
        );
        assert_eq!(
            manager(r#"{"SecretString": "{\"p\": 1}"}"#),
            Ok(br#"{"p": 1}"#.to_vec())
        );
        assert_eq!(
            manager(r#"{"SecretString": null, "SecretBinary": "AP8B"}"#),
            Ok(vec![0, 255, 1])
        );
        for bad in [
            ssm(r#"{"Parameter": {"Value": 7, "x": "hunter2"}}"#),
            ssm("hunter2"),
            manager("{}"),
            manager(r#"{"SecretBinary": "hunter2!"}"#),
        ] {
            let refusal = bad.expect_err("has none");
            assert_eq!(refusal.kind, RefusalKind::Garbled);
            assert!(!format!("{refusal:?}").contains("hunter2"));
        }
    }

    #[test]
    fn each_refusal_is_what_it_means() {
        for (status, code, message, want) in [
            (
                400,
                "AccessDeniedException",
                "User: x is not authorized to perform: ssm:GetParameter",
                RefusalKind::Denied,
            ),
            (
                400,
                "AccessDeniedException",
                "not authorized to perform: kms:Decrypt on resource",
                RefusalKind::NoKey,
            ),
            (
                400,
                "AccessDeniedException",
                "Access to KMS is not allowed",
                RefusalKind::NoKey,
            ),
            (
                400,
                "com.amazonaws.ssm#ParameterNotFound",
                "",
                RefusalKind::NotFound,
            ),
            (
                400,
                "ResourceNotFoundException",
                "Secrets Manager can't find it",
                RefusalKind::NotFound,
            ),
            (
                400,
                "ThrottlingException",
                "Rate exceeded",
                RefusalKind::Throttled,
            ),
            (429, "", "", RefusalKind::Throttled),
            (503, "", "", RefusalKind::Passing),
            (400, "ExpiredTokenException", "", RefusalKind::Passing),
            (400, "InvalidSignatureException", "", RefusalKind::Time),
            (
                400,
                "InvalidRequestException",
                "it is marked for deletion",
                RefusalKind::Other,
            ),
        ] {
            let body = serde_json::json!({"__type": code, "message": message}).to_string();
            let refusal = value(AwsService::Ssm, &answer(status, &body)).expect_err(code);
            assert_eq!(refusal.kind, want, "{code} {message}");
            assert_eq!(refusal.at, Some(1_796_122_800));
        }
    }

    proptest! {
        #[test]
        fn whatever_answers_is_an_answer_and_harmless(
            status in 200u16..600, error_type in ".{0,20}", date in ".{0,40}", message in ".{0,500}", body in prop::collection::vec(any::<u8>(), 0..100), is_json: bool
        ) {
            let json = serde_json::json!({"__type": error_type, "message": message}).to_string();
            let body = if is_json { json.into_bytes() } else { body };
            let answer = HttpAnswer { status, error_type, date, body };
            for service in [AwsService::Ssm, AwsService::SecretsManager] {
                if let Err(refusal) = value(service, &answer) {
                    prop_assert!(!refusal.message.contains(char::is_control));
                    prop_assert!(refusal.message.chars().count() <= MESSAGE_CHARS + 1);
                    prop_assert!(refusal.code.chars().all(|c| c.is_ascii_alphanumeric() || c == ' '));
                }
            }
        }
    }

    #[test]
    fn what_aws_says_is_cut_and_made_harmless() {
        let long = "x".repeat(10_000);
        let body = serde_json::json!({"__type": "a#Some\u{1b}Error:http://x", "Message": format!("\u{1b}[2J{long}")});
        let refusal = value(AwsService::Ssm, &answer(400, &body.to_string())).expect_err("is one");
        assert_eq!(refusal.code, "SomeError");
        assert!(!refusal.message.contains('\u{1b}') && refusal.message.len() < 320);
        let page = value(AwsService::Ssm, &answer(502, "<html>")).expect_err("is none");
        assert_eq!((&*page.code, &*page.message), ("HTTP 502", ""));
        let mut of_header = answer(400, "");
        of_header.error_type = "ParameterNotFound:http://x".to_owned();
        let refusal = value(AwsService::Ssm, &of_header).expect_err("is one");
        assert_eq!(refusal.kind, RefusalKind::NotFound);
    }
}
