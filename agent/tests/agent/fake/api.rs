//! The services that an agent calls: enrolment, the session, transfers.

use std::pin::Pin;
use std::sync::Arc;

use aot_proto::v1::agent_link_server::AgentLink;
use aot_proto::v1::agent_message::Body as Up;
use aot_proto::v1::enrolment_server::Enrolment;
use aot_proto::v1::master_message::Body as Down;
use aot_proto::v1::{
    AgentMessage, EnrolReply, EnrolRequest, FetchChunk, FetchRequest, MasterMessage, RenewReply,
    ShellDown, ShellUp, SpoolAck, TunnelPiece, TunnelUp, Welcome,
};
use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::master::Master;
use super::rig::MACHINE;

/// First and last year of a usual certificate.
const LONG: (i32, i32) = (2025, 2999);

type Messages = Pin<Box<dyn Stream<Item = Result<MasterMessage, Status>> + Send>>;
type Chunks = Pin<Box<dyn Stream<Item = Result<FetchChunk, Status>> + Send>>;

#[derive(Clone)]
pub(crate) struct Api(pub(crate) Arc<Master>);

#[tonic::async_trait]
impl Enrolment for Api {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolReply>, Status> {
        let request = request.into_inner();
        assert_eq!(
            (request.token.as_str(), request.machine_id.as_str()),
            ("70ken", MACHINE)
        );
        let (lose, years) = self.0.change(|state| {
            state.enrolments.push(request.csr_der.clone());
            let lose = state.lose_enrol_replies > 0;
            state.lose_enrol_replies -= usize::from(lose);
            let past = state.past_certificates > 0 && !lose;
            state.past_certificates -= usize::from(past);
            let years = match state.short_certificates {
                _ if past => (2000, 2001),
                0 => LONG,
                // At 70 % of its life the present is long past; it ends well after it.
                _ => (2000, 2032),
            };
            (lose, years)
        });
        if lose {
            return Err(Status::unavailable("lost"));
        }
        let certificate_pem = self.0.sign(&request.csr_der, years);
        Ok(Response::new(EnrolReply {
            certificate_pem,
            ca_pem: self.0.ca_pem.clone(),
            ..EnrolReply::default()
        }))
    }
}

#[tonic::async_trait]
impl AgentLink for Api {
    type ShellStream = ReceiverStream<Result<ShellDown, Status>>;

    async fn shell(
        &self,
        _: Request<Streaming<ShellUp>>,
    ) -> Result<Response<Self::ShellStream>, Status> {
        Err(Status::unimplemented("no terminal here"))
    }

    type TunnelStream = ReceiverStream<Result<TunnelPiece, Status>>;

    async fn tunnel(
        &self,
        request: Request<Streaming<TunnelUp>>,
    ) -> Result<Response<Self::TunnelStream>, Status> {
        let (down, stream) = mpsc::channel(64);
        let tunnel = (request.into_inner(), down);
        self.0.change(|state| state.tunnels.push(tunnel));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    type AttachStream = Messages;
    type FetchStream = Chunks;

    async fn attach(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Messages>, Status> {
        let mut inbound = request.into_inner();
        let master = self.0.clone();
        let (sender, receiver) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok(Some(AgentMessage { body: Some(body) })) = inbound.message().await {
                if let Some(answer) = receive(&master, body, &sender) {
                    let _ = sender.send(Ok(MasterMessage { body: Some(answer) })).await;
                }
            }
            master.change(|state| {
                state
                    .to_agent
                    .take_if(|current| current.same_channel(&sender))
            });
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Chunks>, Status> {
        let request = request.into_inner();
        let found = self.0.change(|state| {
            state.fetch_offsets.push(request.offset);
            let cut = state.cut_fetches > 0;
            state.cut_fetches -= usize::from(cut);
            state
                .bundles
                .get(&request.sha256)
                .map(|bytes| (bytes.clone(), cut))
        });
        let (bytes, cut) = found.ok_or_else(|| Status::not_found("no such bundle"))?;
        let rest = &bytes[request.offset as usize..];
        let rest = if cut { &rest[..rest.len() / 2] } else { rest };
        let total_bytes = bytes.len() as u64;
        let mut chunks: Vec<_> = rest
            .chunks(1000)
            .map(|data| {
                Ok(FetchChunk {
                    data: data.to_vec().into(),
                    total_bytes,
                })
            })
            .collect();
        if cut {
            chunks.push(Err(Status::unavailable("cut")));
        }
        Ok(Response::new(Box::pin(futures::stream::iter(chunks))))
    }
}

/// Records what the agent sent; what is to be answered at once is returned.
fn receive(
    master: &Arc<Master>,
    body: Up,
    sender: &mpsc::Sender<Result<MasterMessage, Status>>,
) -> Option<Down> {
    let answer = match &body {
        Up::Hello(hello) => master.change(|state| {
            state.sessions += 1;
            state.to_agent = Some(sender.clone());
            let acks = hello.runs.iter().filter_map(|run| {
                let bytes = state.spools.get(&run.run_id)?.len() as u64;
                Some(SpoolAck {
                    run_id: run.run_id.clone(),
                    bytes,
                    resend: false,
                })
            });
            let acks = if state.acks {
                acks.collect()
            } else {
                Vec::new()
            };
            let is_strange = state.strange_welcomes > 0;
            state.strange_welcomes -= usize::from(is_strange);
            Some(Down::Welcome(Welcome {
                protocol: if is_strange { u32::MAX } else { 0 },
                session: state.sessions as u64,
                cluster: "c".into(),
                instance: "web1".into(),
                acks,
                masters: state.masters.clone(),
                epoch: state.epoch,
                ..Welcome::default()
            }))
        }),
        Up::Spool(data) => master.change(|state| {
            let spool = state.spools.entry(data.run_id.clone()).or_default();
            let have = spool.len() as u64;
            assert!(data.offset <= have, "a gap in the spool");
            let known = ((have - data.offset) as usize).min(data.data.len());
            assert_eq!(
                &spool[data.offset as usize..][..known],
                &data.data[..known],
                "what is sent again differs"
            );
            spool.extend_from_slice(&data.data[known..]);
            state.overlaps += known as u64;
            if data.end {
                state
                    .ends
                    .insert(data.run_id.clone(), data.offset + data.data.len() as u64);
            }
            let bytes = state.spools[&data.run_id].len() as u64;
            state.acks.then(|| {
                Down::SpoolAck(SpoolAck {
                    run_id: data.run_id.clone(),
                    bytes,
                    resend: false,
                })
            })
        }),
        Up::Renew(renew) => {
            let certificate_pem = master.sign(&renew.csr_der, LONG);
            master.lock().renewed.push(certificate_pem.clone());
            Some(Down::Renew(RenewReply {
                certificate_pem,
                ..RenewReply::default()
            }))
        }
        _ => None,
    };
    master.change(|state| state.received.push(body));
    answer
}
