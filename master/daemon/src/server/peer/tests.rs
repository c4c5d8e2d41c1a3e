//! Who gets into the masters' port, and who is believed to be a master.

use aot_store::fleet::{Announcement, FleetMaster};
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Code;

use super::*;
use crate::enrol::ca::{self, Ca};
use crate::enrol::masters;
use crate::server::door::tests::{Owner, asked_for};

/// A CA of its own.
pub(crate) fn authority() -> Arc<Ca> {
    let dir = tempfile::tempdir().expect("a folder");
    Arc::new(Ca::open(dir.path()).expect("makes it"))
}

/// A master that others reach at this port.
pub(crate) fn master(id: &str, port: u16) -> FleetMaster {
    FleetMaster {
        id: id.to_owned(),
        says: Announcement {
            peer: format!("127.0.0.1:{port}"),
            ..Announcement::default()
        },
        is_draining: false,
        silent_for: Duration::ZERO,
        is_alive: true,
    }
}

type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// An agent's certificate, as `Enrol` gives it.
fn agents(ca: &Ca) -> Shown {
    let key = KeyPair::generate().expect("a key");
    let request = CertificateParams::default().serialize_request(&key);
    let request = ca::read_request(request.expect("signs").der()).expect("its own");
    let id = "spiffe://m/cluster/c/instance/web1/i-1".parse();
    let issued = ca.issue(&request, &id.expect("a name")).expect("signs");
    let certificate = CertificateDer::from_pem_slice(issued.pem.as_bytes()).expect("PEM");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    (vec![certificate], key)
}

fn masters_of(ca: &Ca, id: &str) -> Shown {
    let made = masters::certify(ca, id).expect("signs");
    (vec![made.certificate], made.key)
}

/// Whether a connection that shows this is kept open by the master `a` at this port.
async fn gets_in(port: u16, trusted: &Ca, shown: Option<Shown>) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der().clone()).expect("a CA");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match shown {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).expect("a key"),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("connects");
    let name = ServerName::try_from(masters::host("a")).expect("a name");
    let Ok(mut stream) = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
    else {
        return false;
    };
    // A server of HTTP/2 speaks first; one that refuses hangs up.
    let mut first = [0; 9];
    stream.read_exact(&mut first).await.is_ok()
}

#[tokio::test]
async fn only_masters_of_the_fleet_get_in() {
    let (ca, other) = (authority(), authority());
    let owner = Owner::start(&ca, "a", &[]).await;
    let port = owner.port;
    assert!(gets_in(port, &ca, Some(masters_of(&ca, "b"))).await);
    for (shown, who) in [
        (None, "nobody"),
        (Some(agents(&ca)), "an agent"),
        (Some(masters_of(&other, "b")), "another fleet's master"),
    ] {
        assert!(!gets_in(port, &ca, shown).await, "{who} got in");
    }
}

#[tokio::test]
async fn a_master_is_known_by_its_name_and_by_no_address() {
    let (ca, other) = (authority(), authority());
    let owner = Owner::start(&ca, "a", &[]).await;
    let peers = |ca: &Arc<Ca>| {
        let identity = Arc::new(PeerIdentity::new(ca.clone(), "b".to_owned()));
        Peers::new(identity, TaskTracker::new(), CancellationToken::new())
    };
    let ask = |peers: Peers, id: &str, port| asked_for(peers.channel(master(id, port), "uid 0"));
    let (name, _) = ask(peers(&ca), "a", owner.port).await.expect("is answered");
    assert_eq!(name, "uid 0");
    // The port of another master, of another fleet's, and of nobody.
    let free = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let free = free.local_addr().expect("bound").port();
    for (peers, id, port) in [
        (peers(&ca), "c", owner.port),
        (peers(&other), "a", owner.port),
        (peers(&ca), "a", free),
    ] {
        let refused = ask(peers, id, port).await.expect_err("is not reached");
        assert_eq!(refused.code(), Code::Unavailable);
        let text = refused.message();
        assert!(
            text.contains(&format!("master {id} at 127.0.0.1:{port}")),
            "{text}"
        );
        assert!(text.contains("aot-master masters"), "{text}");
    }
}

/// The agents' port asks for a certificate too, and an agent's services by whose it is.
#[test]
fn a_masters_certificate_is_no_agents() {
    let ca = authority();
    let (chain, _) = masters_of(&ca, "a");
    assert!(ca::holder(&chain[0]).is_err());
}
