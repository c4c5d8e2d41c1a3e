//! Whether paths and links of a bundle stay inside of it. Pure.

use std::path::{Component, Path};

/// The names of an entry's path, or why it leaves the folder.
pub(super) fn parts(path: &Path) -> Result<Vec<&[u8]>, &'static str> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => parts.push(name.as_encoded_bytes()),
            Component::CurDir => {}
            Component::ParentDir => return Err("has .. in its path"),
            Component::RootDir | Component::Prefix(_) => return Err("has an absolute path"),
        }
    }
    Ok(parts)
}

/// Whether a symbolic link in a folder `depth` levels deep stays inside. `..` may stand only at the start: after a
/// name it would follow that name's own link, which no reading of the text can foresee.
pub(super) fn symlink(depth: usize, to: &Path) -> Result<(), &'static str> {
    let mut up = 0;
    let mut named = false;
    for component in to.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(_) => named = true,
            Component::ParentDir if named => return Err("is a link with .. after a name"),
            Component::ParentDir => up += 1,
            Component::RootDir | Component::Prefix(_) => {
                return Err("is a link to an absolute path");
            }
        }
    }
    if up > depth {
        Err("is a link that leaves the bundle")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside() {
        for (depth, to, good) in [
            (0, "a", true),
            (0, "./a/b", true),
            (0, "..", false),
            (1, "..", true),
            (1, "../a", true),
            (1, "../../a", false),
            (2, "../../a", true),
            (2, "a/../b", false),
            (0, "/etc/passwd", false),
        ] {
            assert_eq!(
                symlink(depth, Path::new(to)).is_ok(),
                good,
                "{to} at {depth}"
            );
        }
    }

    #[test]
    fn paths_stay_inside() {
        assert_eq!(parts(Path::new("./a/./b")), Ok(vec![&b"a"[..], &b"b"[..]]));
        for bad in ["../a", "a/../../b", "a/..", "/a"] {
            assert!(parts(Path::new(bad)).is_err(), "{bad}");
        }
    }
}
