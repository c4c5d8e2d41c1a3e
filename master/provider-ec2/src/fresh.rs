//! What was made a moment ago, and what EC2 therefore may not know everywhere yet (EC2 API, "Eventual consistency"): a
//! refusal about it passes, where one about a thing that was merely found stays.

use std::future::Future;
use std::time::Duration;

use aot_host::clock::unix_ms;
use aot_provider::{ErrorKind, Leftovers, Prerequisites, ProviderError};

/// How long it may take until all of EC2 knows a thing.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// Waits between two tries of a call about a new thing, the last one again and again.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
/// How long the tags of a new thing, on which a policy may rest, have before the one further try.
const TAGS_PAUSE: Duration = Duration::from_secs(2);

/// What EC2 says of security groups that it does not know.
pub(super) const GROUP: [&str; 3] = [
    "InvalidGroup.NotFound",
    "InvalidGroupId.NotFound",
    "InvalidSecurityGroupID.NotFound",
];
/// And of placement groups.
pub(super) const PLACEMENT: [&str; 2] = [
    "InvalidPlacementGroup.Unknown",
    "InvalidPlacementGroup.NotFound",
];
/// And of addresses.
pub(super) const ADDRESS: [&str; 2] = ["InvalidAllocationID.NotFound", "InvalidAddress.NotFound"];
/// And of machines.
pub(super) const MACHINE: [&str; 1] = ["InvalidInstanceID.NotFound"];

/// What EC2 says where a policy asks for a tag that the thing does not show (yet).
const NOT_ALLOWED: &str = "UnauthorizedOperation";

/// Notes that this group was made, or was found to be of our making, just now.
pub(super) fn made(prerequisites: &mut Prerequisites, id: &str) {
    let now = unix_ms();
    prerequisites.made_ms.retain(|_, at| is_recent(*at, now));
    prerequisites.made_ms.insert(id.to_owned(), now);
}

/// Whether one of these was made so recently that EC2 may not know it.
pub(super) fn any<'a>(
    prerequisites: &Prerequisites,
    ids: impl IntoIterator<Item = &'a str>,
) -> bool {
    let now = unix_ms();
    let mut made = ids
        .into_iter()
        .filter_map(|id| prerequisites.made_ms.get(id));
    made.any(|at| is_recent(*at, now))
}

fn is_recent(at: u64, now: u64) -> bool {
    now.abs_diff(at) < u64::try_from(LIMIT.as_millis()).unwrap_or(u64::MAX)
}

/// Whether a refusal is of this kind.
pub(super) fn is(error: &ProviderError, codes: &[&str]) -> bool {
    let code = error.code.as_deref();
    code.is_some_and(|code| codes.contains(&code))
}

/// A refusal that passes: the thing is new.
pub(super) fn passes(mut error: ProviderError) -> ProviderError {
    error.kind = ErrorKind::Unavailable;
    error.leftovers = Leftovers::None;
    error
        .message
        .push_str(" (created a moment ago, and not visible everywhere yet)");
    error
}

/// Makes a call about a thing that our own call made just now, until EC2 knows it; `codes` say that it does not. A call
/// that is not allowed is made once more, as a policy may rest on the thing's tags.
///
/// # Errors
/// Of the last try.
pub(super) async fn call<T, F>(
    codes: &[&str],
    mut make: impl FnMut() -> F,
) -> Result<T, ProviderError>
where
    F: Future<Output = Result<T, ProviderError>>,
{
    let deadline = tokio::time::Instant::now() + LIMIT;
    let mut pauses = PAUSES.into_iter();
    let mut may_lack_tags = true;
    loop {
        let error = match make().await {
            Err(error) => error,
            done => return done,
        };
        let pause = if is(&error, codes) {
            pauses.next().unwrap_or(PAUSES[PAUSES.len() - 1])
        } else if is(&error, &[NOT_ALLOWED]) && std::mem::take(&mut may_lack_tags) {
            TAGS_PAUSE
        } else {
            return Err(error);
        };
        if tokio::time::Instant::now() + pause >= deadline {
            return Err(passes(error));
        }
        tokio::time::sleep(pause).await;
    }
}

/// Makes a call, and once more when it is not allowed: a policy may rest on tags that a new thing does not show yet.
///
/// # Errors
/// Of the last try.
pub(super) async fn with_tags<T, F>(make: impl FnMut() -> F) -> Result<T, ProviderError>
where
    F: Future<Output = Result<T, ProviderError>>,
{
    call(&[], make).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn refusal(code: &str) -> ProviderError {
        ProviderError {
            kind: ErrorKind::Invalid,
            leftovers: Leftovers::None,
            message: "no".into(),
            code: Some(code.into()),
        }
    }

    /// How often a call was made, and what it came to, when it fails so for this many times.
    async fn tries(code: &str, failures: usize) -> (usize, Result<(), ErrorKind>) {
        let count = Cell::new(0);
        let result = call(&ADDRESS, || {
            count.set(count.get() + 1);
            let result = match count.get() > failures {
                true => Ok(()),
                false => Err(refusal(code)),
            };
            async { result }
        });
        let result = result.await.map_err(|error| error.kind);
        (count.get(), result)
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_thing_is_waited_for_a_minute() {
        assert_eq!(tries(ADDRESS[0], 3).await, (4, Ok(())));
        let before = tokio::time::Instant::now();
        let (count, result) = tries(ADDRESS[0], usize::MAX).await;
        assert_eq!(result, Err(ErrorKind::Unavailable));
        assert!((5..=12).contains(&count), "{count}");
        let took = before.elapsed();
        assert!(took <= LIMIT && took > LIMIT / 2, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_right_is_tried_once_more_and_the_rest_never() {
        assert_eq!(tries(NOT_ALLOWED, 1).await, (2, Ok(())));
        let refused = Err(ErrorKind::Invalid);
        assert_eq!(tries(NOT_ALLOWED, usize::MAX).await, (2, refused));
        assert_eq!(tries("InvalidInstanceID", usize::MAX).await, (1, refused));
    }

    #[test]
    fn only_what_was_made_just_now_is_new() {
        let mut prerequisites = Prerequisites::default();
        made(&mut prerequisites, "sg-1");
        prerequisites
            .made_ms
            .insert("sg-2".into(), unix_ms() - 61_000);
        assert!(any(&prerequisites, ["sg-3", "sg-1"]));
        assert!(!any(&prerequisites, ["sg-2", "sg-3"]));
        made(&mut prerequisites, "sg-4");
        assert_eq!(prerequisites.made_ms.len(), 2, "what is old is forgotten");
    }
}
