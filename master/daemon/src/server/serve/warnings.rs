//! What settings that can be served with leave out: said once, at the start.

use super::ServeOptions;

/// A fleet without a place for what is long lacks it wherever it does not lie.
pub(super) fn log(options: &ServeOptions) {
    if options.fleet_key.is_some() && options.blobs.is_none() {
        tracing::warn!(
            "this master has a fleet key and no AOT_BLOBS: what lies in its state folder alone (outputs over 64 KiB, bundles, agents, uploads) is missing wherever another master takes its clusters; give all masters the same bucket"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use aot_host::files::write_atomic;
    use aot_store::blobs::{BlobFolder, BlobPlace};
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Level, Metadata, Subscriber};

    use super::super::tests::options;
    use super::*;
    use crate::enrol::fleet_key::FleetKey;
    use crate::enrol::fleet_seal::FleetSeal;

    /// Keeps the messages of warnings.
    #[derive(Clone, Default)]
    struct Warnings(Arc<Mutex<Vec<String>>>);

    impl Visit for Warnings {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            if field.name() == "message" {
                let mut all = self.0.lock().expect("nobody panics with it");
                all.push(format!("{value:?}"));
            }
        }
    }

    impl Subscriber for Warnings {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() == Level::WARN
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            event.record(&mut self.clone());
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    /// What a start with these logs.
    fn logged(dir: &Path, has_key: bool, has_blobs: bool) -> Vec<String> {
        let key = dir.join("fleet.key");
        write_atomic(&key, &[7; 32], 0o600).expect("writes");
        let place = || Arc::new(BlobFolder::new(dir)) as Arc<dyn BlobPlace>;
        let options = ServeOptions {
            fleet_key: has_key
                .then(|| FleetSeal::File(Arc::new(FleetKey::read(&key).expect("reads")))),
            blobs: has_blobs.then(place),
            ..options(dir)
        };
        let warnings = Warnings::default();
        tracing::subscriber::with_default(warnings.clone(), || log(&options));
        let all = warnings.0.lock().expect("nobody panics with it");
        all.clone()
    }

    #[test]
    fn a_fleet_without_a_place_for_what_is_long_is_told_what_it_will_lack() {
        let dir = tempfile::tempdir().expect("a folder");
        let said = logged(dir.path(), true, false);
        let [one] = &said[..] else {
            panic!("{said:?}");
        };
        for part in ["AOT_BLOBS", "outputs over 64 KiB", "bundles"] {
            assert!(one.contains(part), "{one}");
        }
        for (has_key, has_blobs) in [(true, true), (false, false), (false, true)] {
            let said = logged(dir.path(), has_key, has_blobs);
            assert!(said.is_empty(), "{said:?}");
        }
    }
}
