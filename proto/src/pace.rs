//! What a pace as it is said means, the same for whoever says it and whoever keeps it. Pure.

/// Whether not all go at once, by what is said of `concurrency`, in whatever form, and of `canary`.
pub fn is_paced<A>(concurrency: Option<&A>, canary: Option<u32>) -> bool {
    concurrency.is_some() || canary.is_some_and(|first| first > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_the_two_is_enough_and_no_canary_is_none() {
        for (concurrency, canary, want) in [
            (None, None, false),
            (None, Some(0), false),
            (None, Some(1), true),
            (Some("2"), Some(0), true),
        ] {
            let is = is_paced(concurrency.as_ref(), canary);
            assert_eq!(is, want, "{concurrency:?} {canary:?}");
        }
    }
}
