//! How often something may fail before it is given up: in a row. What came on in between counts from the beginning, however long it
//! all takes: whoever follows something for weeks outlives more breaks than one that nothing comes of may have. Pure.

/// The failures since something last came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InARow {
    most: u32,
    failed: u32,
}

impl InARow {
    /// It may fail this many times in a row.
    #[must_use]
    pub const fn new(most: u32) -> Self {
        Self { most, failed: 0 }
    }

    /// It has failed: whether it may be tried once more.
    pub fn failed(&mut self) -> bool {
        self.failed = self.failed.saturating_add(1);
        self.failed <= self.most
    }

    /// Something came of it.
    pub fn came(&mut self) {
        self.failed = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_with_nothing_between_them_end_it() {
        let mut tries = InARow::new(2);
        for _ in 0..1000 {
            assert!(tries.failed() && tries.failed());
            tries.came();
        }
        assert_eq!([(); 4].map(|()| tries.failed()), [true, true, false, false]);
        tries.came();
        assert!(tries.failed());
        assert!(!InARow::new(0).failed());
    }
}
