//! Passwords by SCRAM and TLS, as a server on a network asks for them.

use aot_host::chain::Chain;
use rcgen::{CertificateParams, Issuer, KeyPair};

use super::*;

const PASSWORD: &str = "s3cret-w0rd";

/// A server that lets nobody in but by TLS and a password, with a certificate for `localhost`; and its authority's file.
fn secured() -> Option<(Server, PathBuf)> {
    let server = Server::start().inspect_err(|why| why.skip("TLS and passwords"));
    let server = server.ok()?;
    let database = "postgres";
    server.ask(
        database,
        &format!("CREATE ROLE remote LOGIN PASSWORD '{PASSWORD}'"),
    );
    server.ask(database, "CREATE DATABASE records OWNER remote");
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).expect("a certificate").pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().expect("a key");
    let own = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let own = own.signed_by(&key, &issuer).expect("a certificate");
    server.write("ca.pem", &ca_pem, 0o644);
    server.write("data/server.crt", &own.pem(), 0o644);
    server.write("data/server.key", &key.serialize_pem(), 0o600);
    let hba = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
    server.write("data/pg_hba.conf", hba, 0o600);
    server.ask(database, "ALTER SYSTEM SET ssl = on");
    server.stop();
    server.run();
    let ca = server.dir().join("ca.pem");
    Some((server, ca))
}

#[tokio::test]
async fn tls_and_passwords_are_as_the_url_says() {
    let Some((server, ca)) = secured() else {
        return;
    };
    let ca = ca.display().to_string();
    let url = |password: &str, host: &str, options: &str| {
        format!(
            "postgres://remote:{password}@{host}:{}/records{options}",
            server.port()
        )
    };
    let full = format!("?sslmode=verify-full&sslrootcert={ca}&channel_binding=require");
    let authority = format!("?sslmode=verify-ca&sslrootcert={ca}");
    for (host, options) in [
        ("localhost", &full),
        ("127.0.0.1", &authority),
        ("127.0.0.1", &"?sslmode=require".to_owned()),
    ] {
        let master = Master::of(&url(PASSWORD, host, options));
        let open = master.open().await;
        open.close().await;
    }
    let other = tempfile::tempdir().expect("a folder");
    let stranger = other.path().join("ca.pem");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["other".to_owned()]).expect("a name");
    let own = params.self_signed(&key).expect("a certificate");
    std::fs::write(&stranger, own.pem()).expect("writes");
    let stranger = format!("?sslmode=verify-ca&sslrootcert={}", stranger.display());
    for (password, host, options, why) in [
        (PASSWORD, "127.0.0.1", &full, "certificate"),
        (PASSWORD, "127.0.0.1", &stranger, "certificate"),
        (
            PASSWORD,
            "127.0.0.1",
            &String::new(),
            "compare user, password",
        ),
        ("wr0ng-w0rd", "localhost", &full, "compare user, password"),
        (PASSWORD, "localhost", &format!("{full}x"), "not the URL"),
        (
            PASSWORD,
            "localhost",
            &"?sslmode=verify-full&sslrootcert=/no".to_owned(),
            "sslrootcert",
        ),
    ] {
        let text = refused(&url(password, host, options)).await;
        assert!(text.contains(why), "{host}{options}: {text}");
        assert!(!text.contains("w0rd"), "{text}");
    }
    let shown = format!("{:?}", quick(&url(PASSWORD, "localhost", &full)));
    assert!(
        !shown.contains(PASSWORD) && shown.contains("localhost"),
        "{shown}"
    );
}

async fn refused(url: &str) -> String {
    let postgres = match Postgres::new(url) {
        Ok(postgres) => postgres,
        Err(error) => return Chain(&error).to_string(),
    };
    let dir = tempfile::tempdir().expect("a folder");
    let opened = postgres.open_here(dir.path()).await;
    Chain(&opened.err().expect("is refused")).to_string()
}
