//! Where a bundle's script is: at its top, or in the only folder there; it may be a link to a file of the bundle.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::{MAX_LINKS, ROOT, Tree, TreeNode, TreePosition};

/// The script that a bundle is run by.
pub const SCRIPT: &str = "bootstrap.sh";

/// A bundle that no stage can run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoScript {
    /// There is none where one is looked for.
    #[error("no {SCRIPT} at the top or in the only folder there")]
    Missing,
    /// It is a folder, or a link that does not lead to a file of the bundle.
    #[error("{0:?} is not a file and does not lead to one")]
    NoFile(PathBuf),
}

impl Tree {
    /// The folder that holds the script, relative to the bundle's: itself, or the only name in it.
    ///
    /// # Errors
    /// When the script is in neither, or is not a file.
    pub fn script_folder(&self) -> Result<PathBuf, NoScript> {
        let root = TreePosition::root();
        if self.child(&root, SCRIPT.as_bytes()).is_some() {
            return self.script_in(&root);
        }
        let TreeNode::Folder(names) = &self.nodes[ROOT] else {
            return Err(NoScript::Missing);
        };
        let mut names = names.iter();
        let (Some((name, node)), None) = (names.next(), names.next()) else {
            return Err(NoScript::Missing);
        };
        let mut at = root;
        at.enter(name, *node);
        self.script_in(&at)
    }

    fn script_in(&self, at: &TreePosition) -> Result<PathBuf, NoScript> {
        match self.script_at(at) {
            Some(_) => Ok(at.path.clone()),
            None if self.child(at, SCRIPT.as_bytes()).is_some() => {
                Err(NoScript::NoFile(at.path.join(SCRIPT)))
            }
            None => Err(NoScript::Missing),
        }
    }

    fn script_at(&self, at: &TreePosition) -> Option<PathBuf> {
        let reached = self.reach(at.clone(), SCRIPT.as_bytes(), &mut MAX_LINKS.clone());
        let reached = reached.ok()?;
        matches!(self.nodes[reached.node()], TreeNode::File).then_some(reached.path)
    }

    /// The regular file that the script is, behind all links; relative to the bundle's folder.
    pub fn script_file(&self) -> Option<PathBuf> {
        let folder = self.script_folder().ok()?;
        let names: Vec<Box<[u8]>> = folder
            .iter()
            .map(|name: &OsStr| OsString::from(name).into_encoded_bytes().into())
            .collect();
        self.script_at(&self.find(&names).ok()?)
    }
}
