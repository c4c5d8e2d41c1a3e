//! Reads from providers: what changes nothing and is not an input of the loop.
//!
//! Each has a deadline and a task of the master's own, so that a request that is dropped breaks no call in the middle.
//! What changes or ends something goes through the loop: see [`super::Engines`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aot_model::machine::{ClusterRef, Listing};
use aot_model::prerequisites::Prerequisites;
use aot_model::secret::SecretSource;
use aot_model::spec::{ClusterSpec, ProviderKind};
use aot_provider::{Ask, Problem, Provider, ProviderError, Tagged, Thing};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::providers::Providers;

/// How long a provider has for all its checks.
const CHECKS: Duration = Duration::from_secs(120);

/// How long listing the machines of a cluster may take.
const MACHINES: Duration = Duration::from_secs(30);

/// Longest listing of what carries our tags in one region.
const TAGGED: Duration = Duration::from_secs(200);

/// How long AWS has to give out a secret.
const SECRET: Duration = Duration::from_secs(60);

/// Longest search for the region of the AWS settings: off EC2, asking the metadata service takes its time.
const REGION: Duration = Duration::from_secs(10);

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The provider can't be asked, or refused.
    #[error("{0}")]
    Refused(ProviderError),
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// The master is stopping.
    #[error("the master is stopping")]
    Stopping,
}

/// Asks providers.
#[derive(Clone)]
pub(crate) struct Lookups {
    /// Who makes machines.
    pub providers: Arc<Providers>,
    /// Owner of tasks.
    pub tasks: TaskTracker,
}

/// What the checks of a launch are about.
pub(crate) struct Checks {
    /// The file, parsed.
    pub spec: ClusterSpec,
    /// The cluster, where there is one already.
    pub cluster: Option<ClusterRef>,
    /// What it stands on.
    pub known: Prerequisites,
    /// How many machines each pool lacks.
    pub missing: BTreeMap<String, usize>,
    /// Where agents dial in.
    pub advertise: Vec<String>,
    /// The user's part of the user-data, by pool.
    pub user_parts: BTreeMap<String, String>,
    /// SHA-256 of the agents by architecture.
    pub agents: BTreeMap<String, String>,
}

impl Lookups {
    /// All that stands in the way of a launch; with `outline`, and when nothing does, what would be made besides machines.
    ///
    /// # Errors
    /// When the provider can't be asked, or does not answer in time.
    pub(crate) async fn checks(
        &self,
        checks: Checks,
        outline: bool,
    ) -> Result<(Vec<Problem>, Vec<Thing>), Error> {
        let (kind, region) = (checks.spec.provider, checks.spec.region.clone());
        self.with(kind, region, CHECKS, move |provider| async move {
            Ok(checked(&*provider, &checks, outline).await)
        })
        .await
    }

    /// The machines of a cluster.
    ///
    /// # Errors
    /// When the provider can't be asked, refuses, or does not answer in time.
    pub(crate) async fn machines(
        &self,
        kind: ProviderKind,
        cluster: ClusterRef,
    ) -> Result<Listing, Error> {
        let region = cluster.region.clone();
        self.with(kind, region, MACHINES, |provider| async move {
            provider.describe(&cluster).await
        })
        .await
    }

    /// All that carries our tags in a region, or on this host.
    ///
    /// # Errors
    /// When the provider can't be asked, refuses, or does not answer in time.
    pub(crate) async fn tagged(
        &self,
        kind: ProviderKind,
        region: Option<String>,
    ) -> Result<Vec<Tagged>, Error> {
        self.with(kind, region, TAGGED, |provider| async move {
            provider.tagged().await
        })
        .await
    }

    /// The value of a secret that AWS has.
    ///
    /// # Errors
    /// When AWS can't be asked, refuses, or does not answer in time.
    pub(crate) async fn secret(
        &self,
        source: SecretSource,
        region: Option<String>,
    ) -> Result<Vec<u8>, Error> {
        self.with(ProviderKind::Ec2, region, SECRET, |provider| async move {
            provider.secret(&source).await
        })
        .await
    }

    /// The region of the AWS settings, where there is one.
    pub(crate) async fn default_region(&self) -> Option<String> {
        self.with(ProviderKind::Ec2, None, REGION, |provider| async move {
            Ok(provider.region().await)
        })
        .await
        .ok()?
    }

    /// Gets the provider and asks it, in a task that ends by itself.
    async fn with<T, R>(
        &self,
        kind: ProviderKind,
        region: Option<String>,
        limit: Duration,
        read: impl FnOnce(Arc<dyn Provider>) -> R + Send + 'static,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        R: Future<Output = Result<T, ProviderError>> + Send,
    {
        let providers = self.providers.clone();
        let work = async move { read(providers.get(kind, region.as_deref()).await?).await };
        let task = self.tasks.spawn(timeout(limit, work));
        match task.await {
            Ok(Ok(seen)) => seen.map_err(Error::Refused),
            Ok(Err(_)) => Err(Error::Late(limit)),
            Err(_) => Err(Error::Stopping),
        }
    }
}

async fn checked(
    provider: &dyn Provider,
    checks: &Checks,
    outline: bool,
) -> (Vec<Problem>, Vec<Thing>) {
    let ask = Ask {
        spec: &checks.spec,
        cluster: checks.cluster.as_ref(),
        known: &checks.known,
        missing: &checks.missing,
        advertise: &checks.advertise,
        user_parts: &checks.user_parts,
        agents: &checks.agents,
    };
    let mut problems = provider.preflight(&ask).await;
    if !outline || !problems.is_empty() {
        return (problems, Vec::new());
    }
    let things = provider.outline(&ask).await.unwrap_or_else(|error| {
        problems.push(Problem {
            message: format!("cannot list anything but machines: {error}"),
            hint: "launch makes the same calls".to_owned(),
        });
        Vec::new()
    });
    (problems, things)
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::super::orphans::tests::Scripted;
    use super::*;

    /// A provider whose listings of tags wait for its gate.
    fn slow() -> (Arc<Scripted>, Lookups) {
        let provider = Arc::new(Scripted::behind(Notify::new()));
        let local: Arc<dyn Provider> = provider.clone();
        let make_ec2 = Box::new(|_, _| -> Arc<dyn Provider> { Arc::new(Scripted::with(&[], 0)) });
        let lookups = Lookups {
            providers: Arc::new(Providers::new(local, make_ec2)),
            tasks: TaskTracker::new(),
        };
        (provider, lookups)
    }

    #[tokio::test]
    async fn a_read_continues_when_whoever_asked_has_left() {
        let (provider, lookups) = slow();
        let mut asked = Box::pin(lookups.tagged(ProviderKind::Local, None));
        assert!(futures::poll!(&mut asked).is_pending());
        drop(asked);
        provider.gate.as_ref().expect("it has one").notify_one();
        lookups.tasks.close();
        lookups.tasks.wait().await;
        assert_eq!(*provider.asked.lock().expect("not poisoned"), ["tagged"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_has_a_deadline() {
        let (_, lookups) = slow();
        let seen = lookups.tagged(ProviderKind::Local, None).await;
        let why = seen.expect_err("nothing answers").to_string();
        assert_eq!(why, "no answer within 200 s");
    }
}
