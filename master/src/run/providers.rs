//! The providers that this master has: `local` always, `ec2` one a region, made when first needed.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::model::file::ProviderKind;
use crate::provider::calls::Calls;
use crate::provider::{Provider, ProviderError};

/// Providers by kind and region.
pub struct Providers {
    local: Arc<dyn Provider>,
    ec2: Mutex<HashMap<Option<String>, Arc<dyn Provider>>>,
    /// Calls that they make.
    pub calls: Calls,
}

impl Providers {
    /// With the state folder of the local one.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            local: Arc::new(crate::provider::local::LocalProvider::new(
                state_dir.join("local"),
            )),
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
        let provider: Arc<dyn Provider> = Arc::new(crate::provider::ec2::Ec2Provider::new(
            region.clone(),
            self.calls.clone(),
        ));
        known.insert(region, provider.clone());
        Ok(provider)
    }
}
