//! What the machines of a file would have to prove, asked before a launch: is the region's certificate there?

use aot_host::chain::Chain;
use aot_model::attestation::{self, Attestation};
use aot_model::problem::Problem;
use aot_model::spec::{ClusterSpec, ProviderKind};
use aot_model::world::RegionCertificate;
use aot_proto::v1;
use tonic::Status;

use super::{OperatorApi, stopping};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct AttestationSetup {
    /// The region's certificate.
    pub certificate: RegionCertificate,
    /// What stands in the way.
    pub problems: Vec<Problem>,
    /// What an operator should know.
    pub warning: Option<String>,
}

impl OperatorApi {
    /// Looks for the certificate of the file's region, for a launch that makes this many machines.
    pub(super) async fn attestation(
        &self,
        spec: &ClusterSpec,
        machines: usize,
    ) -> Result<AttestationSetup, Status> {
        if spec.provider == ProviderKind::Local {
            return Ok(AttestationSetup::default());
        }
        let region = match &spec.region {
            Some(region) => Some(region.clone()),
            None => self.lookups.default_region().await,
        };
        let Some(region) = region else {
            return Ok(AttestationSetup::default()); // preflight says what is missing
        };
        let (certificates, named) = (self.certificates.clone(), region.clone());
        let work = tokio::task::spawn_blocking(move || certificates.find(&named));
        let found = work.await.map_err(|_| stopping())?;
        let mut problems = Vec::new();
        let there = matches!(found, Ok(Some(_)));
        let matters = !matches!(
            spec.attestation,
            Attestation::Token | Attestation::Challenge
        );
        if let (Err(error), true) = (&found, matters) {
            problems.push(Problem {
                message: format!("attestation: {}", Chain(error)),
                hint: format!("`aot-master attestation import {region}.pem` replaces it"),
            });
        }
        let mut warning = None;
        let demand = {
            let known = attestation::Circumstances {
                region: &region,
                certificate: there,
                machines,
            };
            attestation::demand(spec, known)
        };
        match demand {
            _ if machines == 0 => {}
            Ok(proof) => warning = attestation::warning(spec.provider, proof, &region),
            Err(_) if !problems.is_empty() => {}
            Err(missing) => problems.push(Problem {
                message: missing.to_string(),
                hint: missing.hint(),
            }),
        }
        Ok(AttestationSetup {
            certificate: RegionCertificate { region, there },
            problems,
            warning,
        })
    }
}

/// A warning as an event of a launch.
pub(super) fn warning_events(
    cluster: &aot_proto::ids::ClusterName,
    warning: Option<String>,
) -> Vec<v1::Event> {
    let event = |text| super::notes::note(cluster, format!("warning: {text}"));
    warning.into_iter().map(event).collect()
}
