//! Values of secrets that AWS keeps: parameters of Systems Manager, and Secrets Manager's. No value is in a log or an error.

use aot_provider::ProviderError;

use super::client::call;
use super::error::{cut_off, invalid};

/// The value of a parameter, decrypted where it is a SecureString.
///
/// # Errors
/// Those of the call, with the parameter's name.
pub(super) async fn parameter(
    ssm: &aws_sdk_ssm::Client,
    name: &str,
) -> Result<Vec<u8>, ProviderError> {
    let request = ssm.get_parameter().name(name).with_decryption(true);
    let answer = call("GetParameter", request.send())
        .await
        .map_err(|error| named(error, "SSM", "parameter", name))?;
    let value = answer.parameter.and_then(|it| it.value);
    value
        .map(String::into_bytes)
        .ok_or_else(|| cut_off(format!("SSM GetParameter: parameter {name:?} has no value")))
}

/// The value of a secret as it is now (AWSCURRENT): text or bytes.
///
/// # Errors
/// Those of the call, with the secret's name.
pub(super) async fn managed(
    client: &aws_sdk_secretsmanager::Client,
    id: &str,
) -> Result<Vec<u8>, ProviderError> {
    let request = client.get_secret_value().secret_id(id);
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
        let http = fake::http(move |_| Some((status, body.to_owned())));
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

    #[tokio::test]
    async fn values_come_as_they_are() {
        let (ssm, _) = answering(
            200,
            r#"{"Parameter": {"Name": "/a", "Value": "hunter2\n"}}"#,
        );
        assert_eq!(parameter(&ssm, "/a").await.expect("reads"), b"hunter2\n");
        let (_, manager) = answering(200, r#"{"Name": "a", "SecretString": "{\"p\": 1}"}"#);
        assert_eq!(managed(&manager, "a").await.expect("reads"), br#"{"p": 1}"#);
        let (_, manager) = answering(200, r#"{"Name": "a", "SecretBinary": "AP8B"}"#);
        assert_eq!(managed(&manager, "a").await.expect("reads"), [0, 255, 1]);
    }

    #[tokio::test]
    async fn what_is_not_there_is_told_by_its_name() {
        let body = r#"{"__type": "ParameterNotFound", "message": "gone"}"#;
        let (ssm, _) = answering(400, body);
        let said = parameter(&ssm, "/a")
            .await
            .expect_err("is not there")
            .message;
        assert!(
            said.starts_with("parameter \"/a\": SSM GetParameter"),
            "{said}"
        );
        let body = r#"{"__type": "ResourceNotFoundException", "message": "gone"}"#;
        let (_, manager) = answering(400, body);
        let said = managed(&manager, "a")
            .await
            .expect_err("is not there")
            .message;
        assert!(
            said.starts_with("secret \"a\": Secrets Manager GetSecretValue"),
            "{said}"
        );
        let (ssm, manager) = answering(200, "{}");
        assert!(parameter(&ssm, "/a").await.is_err());
        let said = managed(&manager, "a").await.expect_err("has none").message;
        assert!(said.contains("no value yet"), "{said}");
    }
}
