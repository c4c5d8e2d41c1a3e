//! The providers that this master has: `local` always, `ec2` one per region, made when first needed.

use std::collections::HashMap;
use std::sync::Arc;

use aot_model::spec::ProviderKind;
use aot_provider::calls::Calls;
use aot_provider::{Provider, ProviderError};
use tokio::sync::Mutex;

/// Makes the provider of a region, or of the default one; the calls are where it counts what it asks.
pub type MakeEc2 = Box<dyn Fn(Option<String>, Calls) -> Arc<dyn Provider> + Send + Sync>;

/// Providers by kind and region.
pub struct Providers {
    local: Arc<dyn Provider>,
    make_ec2: MakeEc2,
    ec2: Mutex<HashMap<Option<String>, Arc<dyn Provider>>>,
    /// Calls that they make.
    pub calls: Calls,
}

impl Providers {
    /// The one for local machines, and how to make one for a region of EC2.
    pub fn new(local: Arc<dyn Provider>, make_ec2: MakeEc2) -> Self {
        Self {
            local,
            make_ec2,
            ec2: Mutex::default(),
            calls: Calls::default(),
        }
    }

    /// The provider of this kind for a region.
    ///
    /// # Errors
    /// When it can't be set up: no region, no credentials.
    pub async fn get(
        &self,
        kind: ProviderKind,
        region: Option<&str>,
    ) -> Result<Arc<dyn Provider>, ProviderError> {
        if kind == ProviderKind::Local {
            return Ok(self.local.clone());
        }
        let mut known = self.ec2.lock().await;
        let region = region.map(str::to_owned);
        if let Some(provider) = known.get(&region) {
            return Ok(provider.clone());
        }
        let provider = (self.make_ec2)(region.clone(), self.calls.clone());
        known.insert(region, provider.clone());
        Ok(provider)
    }
}
