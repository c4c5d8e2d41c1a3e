//! Looks through a tar file of any of the formats that agents read, by the very code that they unpack it with. Streams;
//! unpacks nothing.

use std::io::{self, Read};
use std::path::Path;

use aot_archive::{Heads, Tree, Unreadable};

use super::{BundleError, LIMITS, open, script};

/// Checks the file at `path`, which errors call `shown`; gives what is in it.
pub(super) fn check(path: &Path, shown: &Path) -> Result<Tree, BundleError> {
    let (tree, heads) = inspect(path, shown, None)?;
    tree.script_folder()
        .map_err(|missing| BundleError::no_script(missing, shown))?;
    let Some(file) = tree.script_file() else {
        return Ok(tree);
    };
    let head = match heads.get(&file) {
        Some(head) => head.clone(),
        // It is a link to a file that did not look like the script: once more, for that one.
        None => {
            let mut heads = inspect(path, shown, Some(&file))?.1;
            heads.remove(&file).unwrap_or_default()
        }
    };
    script::check(&head).map_err(|bad| bad.of(shown, &file))?;
    Ok(tree)
}

fn inspect(path: &Path, shown: &Path, also: Option<&Path>) -> Result<(Tree, Heads), BundleError> {
    let damaged = |source| BundleError::Damaged {
        path: shown.to_owned(),
        source,
    };
    let mut stream = aot_archive::decompress(open(path)?).map_err(|error| match error {
        Unreadable::Format(format) => BundleError::Format {
            path: shown.to_owned(),
            format,
        },
        Unreadable::Io(source) => damaged(source),
    })?;
    let inspected = aot_archive::inspect(&mut stream, LIMITS, also)
        .map_err(|error| BundleError::of_archive(error, shown))?;
    // The rest is read as well: a cut-off or damaged file often shows only in the checksum at its end.
    io::copy(&mut stream.by_ref(), &mut io::sink()).map_err(damaged)?;
    Ok(inspected)
}
