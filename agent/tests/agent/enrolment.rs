//! How the agent gets its certificate, and the next one.

use rcgen::{CertificateSigningRequestParams, PublicKeyData};
use rustls_pki_types::CertificateSigningRequestDer;

use super::fake::{Rig, until};

fn key_of(csr: &[u8]) -> Vec<u8> {
    let der = CertificateSigningRequestDer::from(csr.to_vec());
    CertificateSigningRequestParams::from_der(&der)
        .unwrap()
        .public_key
        .der_bytes()
        .to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_enrolment_reply_is_asked_for_again_with_the_same_key() {
    let mut rig = Rig::new().await;
    rig.master.lock().lose_enrol_replies = 1;
    rig.start_agent();
    rig.master
        .until("a session", |state| (state.sessions == 1).then_some(()))
        .await;
    let keys: Vec<_> = rig
        .master
        .lock()
        .enrolments
        .iter()
        .map(|csr| key_of(csr))
        .collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1]);
    rig.kill_agent();
    rig.start_agent();
    rig.master
        .until("another session", |state| {
            (state.sessions == 2).then_some(())
        })
        .await;
    assert_eq!(rig.master.lock().enrolments.len(), 2, "it enrolled again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_over_by_the_masters_clock_is_replaced_with_the_same_key() {
    let mut rig = Rig::new().await;
    rig.master.lock().past_certificates = 2;
    rig.start_agent();
    rig.master
        .until("a session", |state| (state.sessions == 1).then_some(()))
        .await;
    let keys: Vec<_> = rig
        .master
        .lock()
        .enrolments
        .iter()
        .map(|csr| key_of(csr))
        .collect();
    assert_eq!(keys.len(), 3, "one by one, until it was taken");
    assert!(keys.iter().all(|key| *key == keys[0]), "the same key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_within_the_session() {
    let mut rig = Rig::new().await;
    rig.master.lock().short_certificates = 1;
    rig.start_agent();
    rig.master
        .until("a session", |state| (state.sessions == 1).then_some(()))
        .await;
    let path = rig.path("state/identity.pem");
    let renewed = rig
        .master
        .until("a renewal", |state| state.renewed.first().cloned())
        .await;
    assert_eq!(rig.master.builtin(1, "ping").await.json, "true");
    until(|| std::fs::read_to_string(&path).unwrap().contains(&renewed));
    assert_eq!(rig.master.lock().sessions, 1, "the session was cut for it");
    rig.master.cut();
    rig.master
        .until("a session with the new one", |state| {
            (state.sessions == 2).then_some(())
        })
        .await;
    assert_eq!(rig.master.lock().enrolments.len(), 1);
}
