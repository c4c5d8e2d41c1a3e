//! Whole reads, against a metadata service and services of AWS in this process.

mod fake;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::RootCertStore;
use serde_json::json;

use super::*;
use fake::{Answer, Asked, FakeServer, authority, is_signed};

const KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const VALUE: &str = "correct horse battery";

/// A metadata service of a machine in eu-west-1 with the role `web`, whose credentials are others each time.
async fn metadata() -> FakeServer {
    let served = AtomicUsize::new(0);
    FakeServer::plain(move |asked| match asked.what.as_str() {
        "PUT /latest/api/token" => (200, "t0k".to_owned()),
        "GET /latest/meta-data/iam/security-credentials/" => (200, "web\n".to_owned()),
        "GET /latest/meta-data/iam/security-credentials/web" => {
            let number = served.fetch_add(1, Ordering::Relaxed);
            let credentials = json!({
                "Code": "Success", "AccessKeyId": format!("ASIA{number}"), "SecretAccessKey": KEY, "Token": "sess10n",
            });
            (200, credentials.to_string())
        }
        "GET /latest/meta-data/placement/region" => (200, "eu-west-1".to_owned()),
        _ => (404, String::new()),
    })
    .await
}

fn quick() -> RetryBounds {
    RetryBounds {
        base: Duration::from_millis(1),
        most: Duration::from_millis(5),
        tries: 3,
        throttled: Duration::from_secs(2),
    }
}

/// Reads by this metadata service from this AWS.
fn fetcher(imds: &FakeServer, aws: &FakeServer) -> SecretFetcher {
    let endpoints = AwsEndpoints {
        ssm: aws.url.parse().ok(),
        secrets_manager: aws.url.parse().ok(),
    };
    SecretFetcher {
        bounds: quick(),
        ..SecretFetcher::new(Some(imds.url.clone()), endpoints)
    }
}

fn parameter(id: &str) -> MachineSecret {
    MachineSecret {
        name: "token".to_owned(),
        service: AwsService::Ssm.into(),
        id: id.to_owned(),
        ..MachineSecret::default()
    }
}

fn managed(id: &str) -> MachineSecret {
    MachineSecret {
        name: "creds".to_owned(),
        env: "CREDS".to_owned(),
        service: AwsService::SecretsManager.into(),
        ..parameter(id)
    }
}

fn good(asked: &Asked) -> Answer {
    let body = match asked.headers["x-amz-target"].as_str() {
        "AmazonSSM.GetParameter" => json!({"Parameter": {"Value": VALUE}}),
        _ => json!({"SecretString": format!("{VALUE} managed")}),
    };
    (200, body.to_string())
}

fn refused(code: &str, message: &str) -> Answer {
    (400, json!({"__type": code, "message": message}).to_string())
}

/// What is said when AWS answers so, and how many times it was asked.
async fn failure(
    secret: MachineSecret,
    answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
) -> (String, usize) {
    let (imds, aws) = (metadata().await, FakeServer::plain(answer).await);
    let read = fetcher(&imds, &aws).fetch(&[secret]).await;
    let said = read.map(drop).expect_err("it fails");
    assert!(!said.contains(VALUE) && !said.contains(KEY), "{said}");
    (said, aws.asked().len())
}

#[tokio::test]
async fn both_kinds_are_read_with_the_credentials_of_the_machines_role() {
    let (imds, aws) = (metadata().await, FakeServer::plain(good).await);
    let wanted = [parameter("/prod/token"), managed("prod/creds")];
    let values = fetcher(&imds, &aws).fetch(&wanted).await.unwrap();
    let found: Vec<_> = values
        .iter()
        .map(|it| (it.name.as_str(), it.value.as_slice(), it.env.as_str()))
        .collect();
    let want = [
        ("token", VALUE.as_bytes(), ""),
        ("creds", b"correct horse battery managed", "CREDS"),
    ];
    assert_eq!(found, want);
    let asked = aws.asked();
    assert_eq!(asked.len(), 2);
    for (asked, service) in asked.iter().zip(["ssm", "secretsmanager"]) {
        assert_eq!(asked.what, "POST /");
        assert!(is_signed(asked, KEY, "eu-west-1", service), "{asked:?}");
        assert!(!is_signed(asked, "other", "eu-west-1", service));
        assert_eq!(asked.headers["x-amz-security-token"], "sess10n");
        let key = asked.headers["authorization"].contains("Credential=ASIA0/");
        assert!(key, "the credentials of one round are asked for once");
    }
    assert_eq!(
        asked[0].body,
        r#"{"Name":"/prod/token","WithDecryption":true}"#
    );
    let tokens = imds.asked();
    assert!(
        tokens[1..]
            .iter()
            .all(|it| it.headers["x-aws-ec2-metadata-token"] == "t0k")
    );
}

#[tokio::test]
async fn another_region_is_signed_for_where_one_is_said() {
    let (imds, aws) = (metadata().await, FakeServer::plain(good).await);
    let mut secret = parameter("/prod/token");
    secret.region = "us-gov-west-1".to_owned();
    fetcher(&imds, &aws).fetch(&[secret]).await.unwrap();
    assert!(is_signed(&aws.asked()[0], KEY, "us-gov-west-1", "ssm"));
}

#[tokio::test]
async fn what_stays_is_told_at_once_with_the_way_out() {
    for (secret, answer, said) in [
        (
            parameter("/prod/token"),
            refused(
                "AccessDeniedException",
                "User: arn:x is not authorized to perform: ssm:GetParameter",
            ),
            [
                "\"token\" (SSM parameter /prod/token in eu-west-1)",
                "the role web may not read it",
                r#"{"Effect":"Allow","Action":"ssm:GetParameter","Resource":"arn:aws:ssm:eu-west-1:*:parameter/prod/token"}"#,
            ],
        ),
        (
            managed("prod/creds"),
            refused("AccessDeniedException", "Access to KMS is not allowed"),
            [
                "\"creds\" (Secrets Manager secret prod/creds in eu-west-1)",
                "may not use the key",
                r#""Action":"kms:Decrypt","Resource":"arn:aws:kms:eu-west-1:ACCOUNT:key/ID""#,
            ],
        ),
        (
            managed("prod/creds"),
            refused(
                "ResourceNotFoundException",
                "Secrets Manager can't find the specified secret.",
            ),
            [
                "there is none",
                "can't find the specified secret",
                "the region",
            ],
        ),
        (
            parameter("/prod/token"),
            refused("InvalidSignatureException", "Signature not yet current"),
            ["the machine's clock is", "AWS's", "chrony"],
        ),
        (
            parameter("/prod/token"),
            refused("ValidationException", "too\u{1b}[31m odd"),
            ["AWS answers ValidationException", "too [31m odd", "token"],
        ),
        (
            parameter("/prod/token"),
            (200, "<html>".to_owned()),
            ["what answers is not AWS", "token", "token"],
        ),
        (
            parameter("/prod/token"),
            (
                200,
                json!({"Parameter": {"Value": "x".repeat(9 << 10)}}).to_string(),
            ),
            ["it has more than 8 KiB", "token", "token"],
        ),
        (
            parameter("/prod/token"),
            (200, json!({"Parameter": {"Value": "abc"}}).to_string()),
            ["fewer than 4 bytes", "token", "token"],
        ),
        (
            managed("prod/creds"),
            (200, json!({"SecretBinary": "/////w=="}).to_string()),
            ["it is not text", "creds", "creds"],
        ),
    ] {
        let (told, tries) = failure(secret, move |_| answer.clone()).await;
        for part in said {
            assert!(told.contains(part), "{told}\nlacks {part}");
        }
        assert!(told.len() < 1000, "{told}");
        assert_eq!(tries, 1, "{told}");
    }
}

#[tokio::test]
async fn what_passes_is_asked_for_again_with_new_credentials() {
    let answers = [
        refused("ThrottlingException", "Rate exceeded"),
        (503, String::new()),
        refused("ExpiredTokenException", "expired"),
    ];
    for first in answers {
        let asked = AtomicUsize::new(0);
        let answer = move |it: &Asked| match asked.fetch_add(1, Ordering::Relaxed) {
            0 | 2 => first.clone(), // the first of both, and then the second
            _ => good(it),
        };
        let (imds, aws) = (metadata().await, FakeServer::plain(answer).await);
        let wanted = [parameter("/prod/token"), managed("prod/creds")];
        let values = fetcher(&imds, &aws).fetch(&wanted).await.unwrap();
        assert_eq!(values.len(), 2);
        let keys: Vec<String> = aws
            .asked()
            .iter()
            .map(|it| {
                let key = it.headers["authorization"].split('=').nth(1).unwrap();
                key.split('/').next().unwrap().to_owned()
            })
            .collect();
        assert_eq!(keys, ["ASIA0", "ASIA1", "ASIA1", "ASIA2"]);
    }
}

#[tokio::test]
async fn nothing_is_asked_for_without_end() {
    let busy = |_: &Asked| refused("ThrottlingException", "Rate exceeded");
    let (told, tries) = failure(parameter("/prod/token"), busy).await;
    assert!(told.contains("too many ask for secrets at once"), "{told}");
    assert!(tries > 1, "{tries}");
    let (told, tries) = failure(parameter("/prod/token"), |_| (500, String::new())).await;
    assert!(told.contains("AWS answers HTTP 500"), "{told}");
    assert_eq!(tries, 3);
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let long = |_: &Asked| (200, "x".repeat(1 << 20));
    let (told, _) = failure(parameter("/prod/token"), long).await;
    assert!(told.contains("broke: length limit exceeded"), "{told}");
}

#[tokio::test]
async fn a_machine_without_a_role_or_without_a_metadata_service_says_so() {
    let aws = FakeServer::plain(good).await;
    let token = |asked: &Asked| asked.what == "PUT /latest/api/token";
    let no_profile = FakeServer::plain(move |asked| match token(asked) {
        true => (200, "t0k".to_owned()),
        false => (404, String::new()),
    })
    .await;
    let no_trust = FakeServer::plain(move |asked| match asked.what.as_str() {
        _ if token(asked) => (200, "t0k".to_owned()),
        "GET /latest/meta-data/iam/security-credentials/" => (200, "web".to_owned()),
        _ => (
            200,
            json!({"Code": "AssumeRoleUnauthorizedAccess"}).to_string(),
        ),
    })
    .await;
    let switched_off = FakeServer::plain(|_| (403, String::new())).await;
    let gone = FakeServer::plain(|_| (200, String::new())).await;
    let gone_url = gone.url.clone();
    drop(gone);
    for (imds, said) in [
        (
            no_profile.url.as_str(),
            "the machine has no instance profile: name one as `instance_profile_name`",
        ),
        (
            &no_trust.url,
            "no credentials of the role web: AssumeRoleUnauthorizedAccess",
        ),
        (&switched_off.url, "HttpEndpoint: disabled"),
        (&gone_url, "hop limit"),
    ] {
        let mut fetcher = fetcher(&aws, &aws);
        fetcher.imds = Some(imds.to_owned());
        let told = fetcher.fetch(&[parameter("/prod/token")]).await;
        let told = told.map(drop).expect_err(said);
        assert!(
            told.starts_with("cannot read the secret \"token\" (SSM parameter /prod/token): "),
            "{told}"
        );
        assert!(told.contains(said), "{told}");
    }
    let clone = SecretFetcher::new(None, AwsEndpoints::default());
    let told = clone.fetch(&[parameter("/prod/token")]).await;
    let told = told.map(drop).expect_err("it is a clone");
    assert!(told.contains("this machine is a clone"), "{told}");
    assert_eq!(aws.asked().len(), 0, "nobody was asked");
}

#[tokio::test]
async fn only_a_server_with_a_certificate_of_a_root_for_its_name_is_asked() {
    let imds = metadata().await;
    let (roots, config) = authority("127.0.0.1");
    let (_, of_another_name) = authority("aws.example");
    let (other_roots, _) = authority("127.0.0.1");
    let aws = FakeServer::with_tls(config, good).await;
    let read = |aws: &FakeServer, roots: RootCertStore| {
        let fetcher = SecretFetcher {
            trust: Trust::Only(roots),
            ..fetcher(&imds, aws)
        };
        async move { fetcher.fetch(&[parameter("/prod/token")]).await }
    };
    let values = read(&aws, roots.clone()).await.unwrap();
    assert_eq!(values[0].value, VALUE.as_bytes());
    let wrong = FakeServer::with_tls(of_another_name, good).await;
    for (aws, roots, said) in [
        (&aws, other_roots, "is not believed"),
        (&wrong, roots, "is not believed"),
        (
            &aws,
            RootCertStore::empty(),
            "install the package ca-certificates",
        ),
    ] {
        let told = read(aws, roots).await.map(drop).expect_err(said);
        assert!(told.contains(said), "{told}");
    }
    assert_eq!(aws.asked().len(), 1);
    assert_eq!(wrong.asked().len(), 0);
}

#[tokio::test]
async fn who_is_not_there_is_named_with_the_way_there() {
    let (imds, aws) = (metadata().await, FakeServer::plain(good).await);
    let fetcher = fetcher(&imds, &aws);
    let url = aws.url.clone();
    drop(aws);
    let told = fetcher.fetch(&[parameter("/prod/token")]).await;
    let told = told.map(drop).expect_err("nobody is there");
    assert!(
        told.contains(&format!("cannot reach {url}")) && told.contains("VPC endpoint"),
        "{told}"
    );
}

#[test]
fn the_policy_for_machines_allows_what_they_ask_for_and_nothing_else() {
    let policy = include_str!("../../../packaging/iam/aot-machine.json");
    let policy: serde_json::Value = serde_json::from_str(policy).unwrap();
    let statements = policy["Statement"].as_array().unwrap();
    let actions = statements
        .iter()
        .flat_map(|it| it["Action"].as_array().unwrap());
    let actions: Vec<&str> = actions.map(|it| it.as_str().unwrap()).collect();
    let asked = [AwsService::SecretsManager, AwsService::Ssm];
    assert_eq!(actions, asked.map(AwsService::action));
}
