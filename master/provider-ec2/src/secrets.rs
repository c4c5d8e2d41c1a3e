//! Values of secrets that AWS keeps: parameters of Systems Manager, and Secrets Manager's. No value is in a log or an error.

use aot_model::secret::AwsSecret;
use aot_proto::aws::is_uuid;
use aot_provider::ProviderError;

use super::client::call;
use super::error::{cut_off, invalid};

/// The value of a parameter, decrypted where it is a SecureString.
///
/// # Errors
/// Those of the call, with the parameter's name.
pub(super) async fn parameter(
    ssm: &aws_sdk_ssm::Client,
    secret: &AwsSecret,
) -> Result<Vec<u8>, ProviderError> {
    let with_version = |version| format!("{}:{version}", secret.id);
    let versioned = secret.version.as_ref().map(with_version);
    let name = versioned.as_ref().unwrap_or(&secret.id);
    let request = ssm.get_parameter().name(name).with_decryption(true);
    let answer = call("GetParameter", request.send())
        .await
        .map_err(|error| named(error, "SSM", "parameter", name))?;
    let value = answer.parameter.and_then(|it| it.value);
    value
        .map(String::into_bytes)
        .ok_or_else(|| cut_off(format!("SSM GetParameter: parameter {name:?} has no value")))
}

/// The value of a secret, text or bytes: as it is now (AWSCURRENT), unless a version is named.
///
/// # Errors
/// Those of the call, with the secret's name.
pub(super) async fn managed(
    client: &aws_sdk_secretsmanager::Client,
    secret: &AwsSecret,
) -> Result<Vec<u8>, ProviderError> {
    let id = &secret.id;
    let request = client.get_secret_value().secret_id(id);
    let request = match &secret.version {
        Some(version) if is_uuid(version) => request.version_id(version),
        Some(label) => request.version_stage(label),
        None => request,
    };
    let answer = call("GetSecretValue", request.send())
        .await
        .map_err(|error| named(error, "Secrets Manager", "secret", id))?;
    match (answer.secret_string, answer.secret_binary) {
        (Some(text), _) => Ok(text.into_bytes()),
        (None, Some(bytes)) => Ok(bytes.into_inner()),
        (None, None) => Err(invalid(format!("secret {id:?} has no value yet"))),
    }
}

/// The same error, about this one, of this service.
fn named(mut error: ProviderError, service: &str, what: &str, name: &str) -> ProviderError {
    let message = error.message.replacen("EC2 ", &format!("{service} "), 1);
    error.message = format!("{what} {name:?}: {message}");
    error
}

#[cfg(test)]
mod tests {
    use aws_sdk_ssm::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};

    use super::*;
    use crate::fake;

    fn answering(
        status: u16,
        body: &'static str,
    ) -> (aws_sdk_ssm::Client, aws_sdk_secretsmanager::Client) {
        by(move |_| (status, body.to_owned()))
    }

    fn by(
        answer: impl Fn(fake::Request) -> (u16, String) + Send + Sync + 'static,
    ) -> (aws_sdk_ssm::Client, aws_sdk_secretsmanager::Client) {
        let http = fake::http(move |request| Some(answer(request)));
        let config = aws_sdk_secretsmanager::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-1"))
            .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .http_client(http.clone())
            .build();
        let manager = aws_sdk_secretsmanager::Client::from_conf(config);
        (fake::clients("eu-1", &http).1, manager)
    }

    fn at(id: &str, version: Option<&str>) -> AwsSecret {
        AwsSecret {
            id: id.to_owned(),
            region: None,
            version: version.map(str::to_owned),
            on_machine: false,
        }
    }

    #[tokio::test]
    async fn values_come_as_they_are() {
        let (ssm, _) = answering(
            200,
            r#"{"Parameter": {"Name": "/a", "Value": "hunter2\n"}}"#,
        );
        assert_eq!(
            parameter(&ssm, &at("/a", None)).await.expect("reads"),
            b"hunter2\n"
        );
        let (_, manager) = answering(200, r#"{"Name": "a", "SecretString": "{\"p\": 1}"}"#);
        assert_eq!(
            managed(&manager, &at("a", None)).await.expect("reads"),
            br#"{"p": 1}"#
        );
        let (_, manager) = answering(200, r#"{"Name": "a", "SecretBinary": "AP8B"}"#);
        assert_eq!(
            managed(&manager, &at("a", None)).await.expect("reads"),
            [0, 255, 1]
        );
    }

    #[tokio::test]
    async fn a_version_is_asked_for_where_one_is_named() {
        // The fake's value is the request itself.
        let (ssm, manager) = by(|request| {
            let value = serde_json::json!({"Parameter": {"Value": request.body}, "SecretString": request.body});
            (200, value.to_string())
        });
        let uuid = "6f1b0d8e-3c52-4a43-9c4e-0a1b2c3d4e5f";
        let asked = parameter(&ssm, &at("/a", Some("3"))).await.expect("reads");
        let asked = String::from_utf8(asked).expect("is text");
        assert!(asked.contains(r#""Name":"/a:3""#), "{asked}");
        for (version, want) in [
            (Some(uuid), r#""VersionId":"6f1b0d8e"#),
            (Some("AWSPREVIOUS"), r#""VersionStage":"AWSPREVIOUS""#),
            (None, r#"{"SecretId":"a"}"#),
        ] {
            let asked = managed(&manager, &at("a", version)).await.expect("reads");
            let asked = String::from_utf8(asked).expect("is text");
            assert!(asked.contains(want), "{asked}");
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_told_by_its_name() {
        let body = r#"{"__type": "ParameterNotFound", "message": "gone"}"#;
        let (ssm, _) = answering(400, body);
        let said = parameter(&ssm, &at("/a", None))
            .await
            .expect_err("is not there")
            .message;
        assert!(
            said.starts_with("parameter \"/a\": SSM GetParameter"),
            "{said}"
        );
        let body = r#"{"__type": "ResourceNotFoundException", "message": "gone"}"#;
        let (_, manager) = answering(400, body);
        let said = managed(&manager, &at("a", None))
            .await
            .expect_err("is not there")
            .message;
        assert!(
            said.starts_with("secret \"a\": Secrets Manager GetSecretValue"),
            "{said}"
        );
        let (ssm, manager) = answering(200, "{}");
        assert!(parameter(&ssm, &at("/a", None)).await.is_err());
        let said = managed(&manager, &at("a", None))
            .await
            .expect_err("has none")
            .message;
        assert!(said.contains("no value yet"), "{said}");
    }
}
