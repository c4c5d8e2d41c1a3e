//! What a launch asks for, as everything here reads it.

use aot_model::spec::PoolSpec;
use aot_provider::Ask;

/// The pools of which machines are to be made.
pub(super) fn missing_pools<'a>(ask: &Ask<'a>) -> impl Iterator<Item = &'a PoolSpec> {
    let missing = ask.missing;
    let wanted = move |pool: &&PoolSpec| missing.get(pool.label()).is_some_and(|count| *count > 0);
    ask.spec.pools.iter().filter(wanted)
}
