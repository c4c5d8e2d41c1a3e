//! A certificate that an agent wants renewed: it asks with a new request for its key, and is answered in its session.

use std::time::Instant;

use aot_proto::v1::{self, master_message};

use super::{Master, Reports};

impl<M: Master> Reports<M> {
    pub(super) async fn renew(&self, csr_der: &[u8]) {
        let asked_with = self.origin.serial();
        let renewed = self
            .master
            .renew(csr_der, &self.id, self.session, asked_with)
            .await;
        let reply = match renewed {
            Ok(issued) => {
                self.origin.renewed(&issued.serial);
                v1::RenewReply {
                    certificate_pem: issued.pem,
                    error: String::new(),
                    expires_unix: issued.expires_unix,
                }
            }
            Err(error) => {
                if let Some(left_out) = self.log_limit.admit(Instant::now()) {
                    tracing::warn!(instance = %self.at, reason = error, left_out, "refused to renew a certificate");
                }
                v1::RenewReply {
                    error,
                    ..v1::RenewReply::default()
                }
            }
        };
        self.send(master_message::Body::Renew(reply));
    }
}
