//! The requests: GetParameter of SSM and GetSecretValue of Secrets Manager, JSON 1.1 by POST, signed with SigV4 by `aws-sigv4`. Pure.

use std::time::SystemTime;

use aot_proto::aws::is_uuid;
use aot_proto::v1::{AwsService, MachineSecret};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use serde_json::{Value, json};

use super::endpoint::AwsEndpoint;
use super::failure::Error;
use super::role::MachineRole;

const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// A request for the value of a secret.
///
/// # Errors
/// When it can't be signed, which does not happen.
pub(super) fn signed(
    secret: &MachineSecret,
    endpoint: &AwsEndpoint,
    region: &str,
    role: &MachineRole,
    now: SystemTime,
) -> Result<Request<Full<Bytes>>, Error> {
    let (service, target) = match secret.service() {
        AwsService::SecretsManager => ("secretsmanager", "secretsmanager.GetSecretValue"),
        AwsService::Ssm | AwsService::Unspecified => ("ssm", "AmazonSSM.GetParameter"),
    };
    let body = asked(secret).to_string();
    let authority = endpoint.authority();
    let headers = [
        ("host", authority.as_str()),
        ("content-type", CONTENT_TYPE),
        ("x-amz-target", target),
    ];
    let identity = role.credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(service)
        .time(now)
        .settings(SigningSettings::default())
        .build()
        .map_err(|_| Error::Unsigned)?
        .into();
    let signable = SignableRequest::new(
        "POST",
        format!("{}/", endpoint.url()),
        headers.into_iter(),
        SignableBody::Bytes(body.as_bytes()),
    );
    let signed = signable.and_then(|signable| sign(signable, &params));
    let (signature, _) = signed.map_err(|_| Error::Unsigned)?.into_parts();
    let mut request = Request::post("/");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request
        .header(
            "user-agent",
            concat!("aot-agent/", env!("CARGO_PKG_VERSION")),
        )
        .body(Full::new(Bytes::from(body)));
    let mut request = request.map_err(|_| Error::Unsigned)?;
    signature.apply_to_request_http1x(&mut request);
    Ok(request)
}

/// What is said in it.
fn asked(secret: &MachineSecret) -> Value {
    let (id, version) = (secret.id.as_str(), secret.version.as_str());
    match secret.service() {
        AwsService::SecretsManager if version.is_empty() => json!({"SecretId": id}),
        AwsService::SecretsManager => {
            let which = match is_uuid(version) {
                true => "VersionId",
                false => "VersionStage",
            };
            json!({"SecretId": id, which: version})
        }
        AwsService::Ssm | AwsService::Unspecified => {
            let name = match version {
                "" => id.to_owned(),
                _ => format!("{id}:{version}"),
            };
            json!({"Name": name, "WithDecryption": true})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_credential_types::Credentials;
    use std::time::Duration;

    fn role() -> MachineRole {
        MachineRole {
            name: "web".to_owned(),
            credentials: Credentials::new(
                "AKIDEXAMPLE",
                "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
                Some("t0k".to_owned()),
                None,
                "test",
            ),
            region: "us-east-1".to_owned(),
            domain: "amazonaws.com".to_owned(),
            partition: "aws".to_owned(),
        }
    }

    fn secret(service: AwsService, version: &str) -> MachineSecret {
        MachineSecret {
            name: "db".to_owned(),
            service: service.into(),
            id: "/prod/db".to_owned(),
            version: version.to_owned(),
            ..MachineSecret::default()
        }
    }

    #[test]
    fn each_service_is_asked_in_its_own_words() {
        let uuid = "6f1b0d8e-3c52-4a43-9c4e-0a1b2c3d4e5f";
        for (service, version, want) in [
            (
                AwsService::Ssm,
                "",
                json!({"Name": "/prod/db", "WithDecryption": true}),
            ),
            (
                AwsService::Ssm,
                "3",
                json!({"Name": "/prod/db:3", "WithDecryption": true}),
            ),
            (
                AwsService::SecretsManager,
                "",
                json!({"SecretId": "/prod/db"}),
            ),
            (
                AwsService::SecretsManager,
                "AWSPREVIOUS",
                json!({"SecretId": "/prod/db", "VersionStage": "AWSPREVIOUS"}),
            ),
            (
                AwsService::SecretsManager,
                uuid,
                json!({"SecretId": "/prod/db", "VersionId": uuid}),
            ),
        ] {
            assert_eq!(asked(&secret(service, version)), want);
        }
    }

    #[test]
    fn a_request_is_signed_for_its_service_and_region_with_the_roles_session() {
        let endpoint = "https://ssm.eu-west-1.amazonaws.com".parse().unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        let secret = secret(AwsService::Ssm, "");
        let request = signed(&secret, &endpoint, "eu-west-1", &role(), now);
        let request = request.map_err(|why| why.to_string()).unwrap();
        let header = |name: &str| request.headers()[name].to_str().unwrap();
        assert_eq!(header("host"), "ssm.eu-west-1.amazonaws.com");
        assert_eq!(header("x-amz-target"), "AmazonSSM.GetParameter");
        assert_eq!(header("x-amz-date"), "20150830T123600Z");
        assert_eq!(header("x-amz-security-token"), "t0k");
        let authorization = header("authorization");
        let start = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/eu-west-1/ssm/aws4_request, \
            SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, Signature=";
        assert!(authorization.starts_with(start), "{authorization}");
        assert_eq!(authorization.len(), start.len() + 64);
        assert!(!authorization.contains("wJalr"));
    }
}
