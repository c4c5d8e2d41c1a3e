//! Which boot of this machine's kernel this is.

use std::path::Path;

use crate::files::trimmed;

/// Another one after every boot (random(4), boot_id); `None` where there is none.
#[must_use]
pub fn kernel_boot_id() -> Option<String> {
    trimmed(Path::new("/proc/sys/kernel/random/boot_id")).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_uuid_and_stays_the_same() {
        let id = kernel_boot_id().expect("Linux has one");
        assert_eq!(id.len(), 36, "{id}");
        assert_eq!(kernel_boot_id(), Some(id));
    }
}
