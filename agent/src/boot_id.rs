//! Which boot of the machine this is. Used by the journal's recovery and by Hello.

use std::path::Path;

use aot_host::boot_id::kernel_boot_id;
use aot_host::files::trimmed;

/// The kernel's boot id, or the content of `file` where clones share a kernel (see random(4), boot_id).
pub(crate) fn boot_id(file: Option<&Path>) -> String {
    file.and_then(trimmed)
        .filter(|id| !id.is_empty())
        .or_else(kernel_boot_id)
        .unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machines_own_boot_id_goes_before_the_kernels() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("boot_id");
        let kernel = boot_id(None);
        assert_eq!(boot_id(Some(&path)), kernel, "no file: the kernel's");
        std::fs::write(&path, "clone-7\n").unwrap();
        assert_eq!(boot_id(Some(&path)), "clone-7");
    }
}
