//! Enrolment: a request to join, looked at, decided on by the world, and signed.

use std::time::{Duration, Instant};

use aot_host::chain::Chain;
use aot_model::attestation::{Secret, ShownDocument};
use aot_model::hash::sha256_hex;
use aot_model::world::{Answer, EnrolAsk, Granted, Input, Refused};
use aot_proto::ids::{ClusterName, SpiffeId};
use aot_proto::v1;
use aot_proto::v1::enrolment_server::Enrolment;
use aot_provider::tags;
use tonic::{Request, Response, Status};

use super::{AgentApi, peer, unanswered};
use crate::enrol::{attest, ca};
use crate::session::wall;

/// Longest wait for the provider to show a machine whose document is good; less than an agent waits for its answer.
const SHOWN_WITHIN: Duration = Duration::from_secs(8);

/// Enrolments that may wait for that at once. One more is asked to come again.
pub(crate) const WAITING: usize = 1024;

#[tonic::async_trait]
impl Enrolment for AgentApi {
    async fn enrol(
        &self,
        request: Request<v1::EnrolRequest>,
    ) -> Result<Response<v1::EnrolReply>, Status> {
        let peer = peer(&request)?;
        let request = wall::admit_enrolment(request.into_inner()).map_err(|breach| {
            self.limit.log(peer.address.ip(), |left_out| {
                tracing::warn!(address = %peer.address, error = breach, left_out, "refused to enrol");
            });
            Status::permission_denied("not admitted")
        })?;
        let token = sha256_hex(request.token.as_bytes());
        let cluster = self.engine.cluster_of_token(&token);
        let known = cluster.is_some().then_some(&*token);
        if !self.limit.admit(peer.address.ip(), known, Instant::now()) {
            return Err(Status::resource_exhausted("slow down"));
        }
        // What is logged of it has got past the wall: the machine id is one.
        let refuse = |why: &dyn std::error::Error| {
            self.limit.log(peer.address.ip(), |left_out| {
                tracing::warn!(address = %peer.address, machine = %request.machine_id, error = %Chain(why), left_out, "refused to enrol");
            });
            Status::permission_denied("not admitted")
        };
        let Some(cluster) = cluster else {
            return Err(refuse(&Refused::UnknownToken));
        };
        let csr = ca::read_request(&request.csr_der).map_err(|error| refuse(&error))?;
        let mut ask =
            attest::examine(&request, csr.key_sha256.clone()).map_err(|error| refuse(&error))?;
        ask.answer = Secret(request.challenge_answer.clone());
        let wanted = match self.engine.read(&cluster, |world| world.wanted(&ask)) {
            Ok(wanted) => wanted,
            Err(why) => return Err(status(&why, refuse)),
        };
        if wanted.proof.has_document() {
            let message = request.identity_signature.clone();
            ask.document = self.document(message, wanted.region).await;
        }
        match self.decide(&cluster, ask).await? {
            Answer::Granted(granted) => self.certify(&csr, granted).await,
            Answer::Challenged { id, left_ms } => Ok(Response::new(v1::EnrolReply {
                challenge: Some(v1::Challenge {
                    tag: tags::CHALLENGE.to_owned(),
                    id,
                    left_ms,
                }),
                ..v1::EnrolReply::default()
            })),
            Answer::Refused(why) => Err(status(&why, refuse)),
            _ => Err(Status::unavailable("try again")),
        }
    }
}

/// A machine may be faster than the answer to the call that made it, or than the end of its last challenge: that is not a
/// refusal.
fn status(why: &Refused, refuse: impl Fn(&dyn std::error::Error) -> Status) -> Status {
    let refused = refuse(why);
    match why {
        Refused::TooEarly | Refused::Unchallenging(_) => Status::unavailable("try again"),
        _ => refused,
    }
}

impl AgentApi {
    /// Reads the certificate of the region, and the message that it signed: a small file and a millisecond of work, for a
    /// machine whose token is right.
    async fn document(&self, message: String, region: String) -> ShownDocument {
        let certificates = self.certificates.clone();
        let work = tokio::task::spawn_blocking(move || match certificates.find(&region) {
            Ok(Some(certificate)) => attest::shown(&message, &certificate),
            Ok(None) => ShownDocument::Bad(format!("the certificate of {region} is gone")),
            Err(error) => ShownDocument::Bad(Chain(&error).to_string()),
        });
        work.await
            .unwrap_or_else(|_| ShownDocument::Bad("it could not be read".to_owned()))
    }

    /// The world's decision, once the provider has shown the machine where that matters.
    async fn decide(&self, cluster: &ClusterName, ask: EnrolAsk) -> Result<Answer, Status> {
        let mut shown = self.engine.machines_shown(cluster);
        let until = tokio::time::Instant::now() + SHOWN_WITHIN;
        let mut place = None;
        loop {
            let input = Input::Enrol(ask.clone());
            let answer = self.engine.ask(input).await.map_err(unanswered)?;
            if !matches!(answer, Answer::Later) {
                return Ok(answer);
            }
            if place.is_none() {
                let full = |_| Status::unavailable("try again");
                place = Some(self.waiting.try_acquire().map_err(full)?);
            }
            match tokio::time::timeout_at(until, shown.changed()).await {
                Ok(Ok(())) => {}
                // The cluster is gone, or it took too long.
                Ok(Err(_)) | Err(_) => return Ok(Answer::Later),
            }
        }
    }

    async fn certify(
        &self,
        csr: &ca::SigningRequest,
        granted: Granted,
    ) -> Result<Response<v1::EnrolReply>, Status> {
        let id = SpiffeId {
            master: self.ca.id().to_owned(),
            cluster: granted.at.cluster.clone(),
            instance: granted.at.instance.clone(),
            machine: granted.machine.clone(),
        };
        let issued = self.issue(csr, &id, None).await?;
        Ok(Response::new(v1::EnrolReply {
            certificate_pem: issued.pem,
            ca_pem: self.ca.pem().to_owned(),
            cluster: granted.at.cluster.to_string(),
            instance: granted.at.instance.to_string(),
            pool: granted.pool,
            spiffe_id: id.to_string(),
            expires_unix: issued.expires_unix,
            challenge: None,
        }))
    }
}
