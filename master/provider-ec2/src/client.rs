//! Clients of the EC2 API, one per region, made when first needed; and the one way to call through them.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::future::Future;
use std::time::Duration;

use aot_aws::Patience;
use aot_host::chain::Chain;
use aot_provider::calls::Calls;
use aot_provider::{Problem, ProviderError};
use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::config::{Builder, ProvideCredentials as _, Region};
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use tokio::sync::{Mutex, OnceCell};

use super::call_log::CallLog;
use super::error::{ENCODED, invalid, provider_error};
use super::repeats::LastingRefusals;
use super::truncation;

/// A big RunInstances takes its time. With 30 % of all calls throttled one call in 15,000 fails.
const PATIENCE: Patience = Patience {
    attempt: Duration::from_secs(60),
    call: Some(Duration::from_secs(180)),
    attempts: 8,
    longest_backoff: Duration::from_secs(10),
};

/// Settings of the AWS SDK (environment, profile, SSO, process, container, instance), and clients by region.
pub(super) struct Clients {
    region: Option<String>,
    call_log: CallLog,
    settings: OnceCell<SdkConfig>,
    made: Mutex<HashMap<String, Client>>,
    made_ssm: Mutex<HashMap<String, aws_sdk_ssm::Client>>,
    made_secrets_manager: Mutex<HashMap<String, aws_sdk_secretsmanager::Client>>,
}

impl Clients {
    pub(crate) fn new(region: Option<String>, calls: Calls) -> Self {
        Self {
            region,
            call_log: CallLog::new(calls),
            settings: OnceCell::new(),
            made: Mutex::new(HashMap::new()),
            made_ssm: Mutex::new(HashMap::new()),
            made_secrets_manager: Mutex::new(HashMap::new()),
        }
    }

    /// With these settings, for tests.
    #[cfg(test)]
    pub(crate) fn with(settings: SdkConfig, calls: Calls) -> Self {
        Self {
            settings: OnceCell::new_with(Some(settings)),
            ..Self::new(None, calls)
        }
    }

    async fn settings(&self) -> &SdkConfig {
        let load = || async {
            let loader = aot_aws::settings(&PATIENCE).http_client(truncation::client());
            match &self.region {
                Some(region) => loader.region(Region::new(region.clone())).load().await,
                None => loader.load().await,
            }
        };
        self.settings.get_or_init(load).await
    }

    /// The region that counts: the cluster's, else that of the settings.
    pub(crate) async fn region(&self, cluster: Option<&str>) -> Option<String> {
        match cluster {
            Some(region) => Some(region.to_owned()),
            None => self
                .settings()
                .await
                .region()
                .map(|region| region.as_ref().to_owned()),
        }
    }

    /// The client for a cluster's region, and the region.
    pub(crate) async fn client(
        &self,
        cluster: Option<&str>,
    ) -> Result<(Client, String), ProviderError> {
        let Some(region) = self.region(cluster).await else {
            return Err(invalid(NO_REGION.to_owned() + ": " + NO_REGION_HINT));
        };
        let settings = self.settings().await;
        let mut made = self.made.lock().await;
        let client = made.entry(region.clone()).or_insert_with(|| {
            let config = Builder::from(settings)
                .region(Region::new(region.clone()))
                .interceptor(self.call_log.clone())
                .retry_classifier(LastingRefusals)
                .build();
            Client::from_conf(config)
        });
        Ok((client.clone(), region))
    }

    /// The client of Systems Manager for the same region, with the same settings.
    pub(crate) async fn ssm(
        &self,
        cluster: Option<&str>,
    ) -> Result<aws_sdk_ssm::Client, ProviderError> {
        let Some(region) = self.region(cluster).await else {
            return Err(invalid(NO_REGION.to_owned() + ": " + NO_REGION_HINT));
        };
        let settings = self.settings().await;
        let mut made = self.made_ssm.lock().await;
        let client = made.entry(region.clone()).or_insert_with(|| {
            let config = aws_sdk_ssm::config::Builder::from(settings)
                .region(Region::new(region))
                .interceptor(self.call_log.clone())
                .build();
            aws_sdk_ssm::Client::from_conf(config)
        });
        Ok(client.clone())
    }

    /// The client of Secrets Manager for the same region, with the same settings.
    pub(crate) async fn secrets_manager(
        &self,
        cluster: Option<&str>,
    ) -> Result<aws_sdk_secretsmanager::Client, ProviderError> {
        let Some(region) = self.region(cluster).await else {
            return Err(invalid(NO_REGION.to_owned() + ": " + NO_REGION_HINT));
        };
        let settings = self.settings().await;
        let mut made = self.made_secrets_manager.lock().await;
        let client = made.entry(region.clone()).or_insert_with(|| {
            let config = aws_sdk_secretsmanager::config::Builder::from(settings)
                .region(Region::new(region))
                .interceptor(self.call_log.clone())
                .build();
            aws_sdk_secretsmanager::Client::from_conf(config)
        });
        Ok(client.clone())
    }

    /// What is missing before any call can be made.
    pub(crate) async fn problems(&self, cluster: Option<&str>) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.region(cluster).await.is_none() {
            problems.push(Problem {
                message: NO_REGION.into(),
                hint: NO_REGION_HINT.into(),
            });
        }
        let credentials = match self.settings().await.credentials_provider() {
            Some(provider) => provider
                .provide_credentials()
                .await
                .map(drop)
                .map_err(|error| Chain(&error).to_string()),
            None => Err("no source is set up".into()),
        };
        if let Err(why) = credentials {
            problems.push(Problem {
                message: format!("no AWS credentials: {why}"),
                hint: "set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run on a machine with a role".into(),
            });
        }
        problems
    }
}

const NO_REGION: &str = "no AWS region is known";
const NO_REGION_HINT: &str =
    "set `region` in cluster.yml, or AWS_REGION, or a region in the AWS profile";

/// Waits for one call's answer. `call_log` has logged it.
pub(super) async fn call<T, E>(
    operation: &'static str,
    answer: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
) -> Result<T, ProviderError>
where
    E: StdError + ProvideErrorMetadata + 'static,
{
    answer.await.map_err(|error| {
        // In what is reported it is cut; whoever administers the account needs all of it.
        if let Some(text) = error.message().filter(|text| text.contains(ENCODED)) {
            tracing::info!(operation, text, "not authorized");
        }
        provider_error(operation, &error)
    })
}
