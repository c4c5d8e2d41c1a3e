//! What the entries of a bundle come to, decided in a model of the tree. Inspecting a bundle and unpacking one ask the
//! same model, so what the one accepts the other makes. Pure.
//!
//! The rules are those of GNU tar where they are sensible for a folder that starts empty and stands alone: the last entry
//! of a name counts, a folder replaces a file or link, what lies below a link to a folder goes where the link leads, a
//! hard link to a link is a link. Nothing leads out of the folder.

mod script;
mod templates;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::entry::{EntryKind, Item, link_stays, os};
use super::error::Error;
use super::{Limits, MAX_DEPTH};
pub use script::{NoScript, SCRIPT};
pub use templates::TEMPLATE;

/// Most links on the way to one thing (path_resolution(7) has 40).
const MAX_LINKS: u32 = 40;
/// Most bytes of names and links' targets together: what the model holds of them.
const MAX_TEXT_BYTES: usize = 256 << 20;
/// Where the tree begins.
const ROOT: usize = 0;

/// What is to be done about an entry. Paths are of real folders: nothing in them is a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EntryAction {
    /// There is nothing to be done.
    Nothing,
    /// A folder; `replaces`: a file or link is there and goes.
    Folder { path: PathBuf, replaces: bool },
    /// A file, over any file or link that is there.
    File(PathBuf),
    /// A link with this target, over any file or link that is there.
    Symlink { path: PathBuf, to: Vec<u8> },
    /// One more name for a regular file.
    HardLink { path: PathBuf, from: PathBuf },
}

#[derive(Debug)]
enum TreeNode {
    Folder(HashMap<Box<[u8]>, usize>),
    File,
    Link(Box<[u8]>),
}

/// Where one is in the tree.
#[derive(Debug, Clone)]
struct TreePosition {
    /// From the root to here.
    nodes: Vec<usize>,
    path: PathBuf,
}

impl TreePosition {
    fn root() -> Self {
        Self {
            nodes: vec![ROOT],
            path: PathBuf::new(),
        }
    }

    fn node(&self) -> usize {
        *self.nodes.last().unwrap_or(&ROOT)
    }

    fn depth(&self) -> usize {
        self.nodes.len() - 1
    }

    fn enter(&mut self, name: &[u8], node: usize) {
        self.nodes.push(node);
        self.path.push(os(name));
    }
}

/// Why an entry is refused.
type Why = &'static str;

/// A model of what has been unpacked.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<TreeNode>,
    limits: Limits,
    text_bytes: usize,
}

impl Tree {
    /// An empty folder.
    pub fn new(limits: Limits) -> Self {
        Self {
            nodes: vec![TreeNode::Folder(HashMap::new())],
            limits,
            text_bytes: 0,
        }
    }

    /// Adds a folder (its path without `..`).
    ///
    /// # Errors
    /// Why it can't be there.
    pub fn folder(&mut self, path: &Path) -> Result<(), Error> {
        self.add(path, EntryKind::Folder)
    }

    /// Adds a regular file.
    ///
    /// # Errors
    /// As [`Tree::folder`].
    pub fn file(&mut self, path: &Path) -> Result<(), Error> {
        self.add(path, EntryKind::File { holes: false })
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// As [`Tree::folder`]; when it may lead out of the bundle.
    pub fn symlink(&mut self, path: &Path, to: &Path) -> Result<(), Error> {
        self.add(
            path,
            EntryKind::Symlink(to.as_os_str().as_encoded_bytes().to_owned()),
        )
    }

    fn add(&mut self, path: &Path, kind: EntryKind) -> Result<(), Error> {
        let bytes = path.as_os_str().as_encoded_bytes();
        let name = super::error::shown(bytes);
        let parts = super::entry::parts(bytes).map_err(|why| Error::Refused {
            name: name.clone(),
            why,
        })?;
        self.step(&Item {
            name,
            path: parts,
            kind,
            mode: 0,
            mtime: None,
            size: 0,
        })
        .map(drop)
    }

    /// Adds an entry; what is to be done about it.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub(super) fn step(&mut self, item: &Item) -> Result<EntryAction, Error> {
        let step = self.decide(item).map_err(|why| Error::Refused {
            name: item.name.clone(),
            why,
        })?;
        let most = usize::try_from(self.limits.entries).unwrap_or(usize::MAX);
        if self.nodes.len() - 1 > most || self.text_bytes > MAX_TEXT_BYTES {
            return Err(Error::TooMany(self.limits.entries));
        }
        Ok(step)
    }

    fn decide(&mut self, item: &Item) -> Result<EntryAction, Why> {
        let Some((last, parents)) = item.path.split_last() else {
            return match item.kind {
                EntryKind::Folder => Ok(EntryAction::Nothing),
                _ => Err("would replace the folder itself"),
            };
        };
        let at = self.walk(parents)?;
        let path = at.path.join(os(last));
        let there = self.child(&at, last);
        let is_folder = there.is_some_and(|node| matches!(self.nodes[node], TreeNode::Folder(_)));
        if is_folder && item.kind != EntryKind::Folder {
            return Err("would replace a folder of that name");
        }
        match &item.kind {
            EntryKind::Folder => {
                let replaces = there.is_some() && !is_folder;
                if !is_folder {
                    if at.depth() >= MAX_DEPTH {
                        return Err("is deeper than 200 folders");
                    }
                    self.put(&at, last, there, TreeNode::Folder(HashMap::new()));
                }
                Ok(EntryAction::Folder { path, replaces })
            }
            EntryKind::File { .. } => {
                self.put(&at, last, there, TreeNode::File);
                Ok(EntryAction::File(path))
            }
            EntryKind::Symlink(to) => self.link(&at, last, there, path, to.clone()),
            EntryKind::HardLink(to) => {
                let Some((name, folders)) = to.split_last() else {
                    return Err("is a hard link to a folder");
                };
                let missing = "is a hard link to nothing that comes before it";
                let from = self.find(folders).map_err(|_| missing)?;
                let node = self.child(&from, name).ok_or(missing)?;
                match &self.nodes[node] {
                    TreeNode::Folder(_) => Err("is a hard link to a folder"),
                    TreeNode::Link(target) => {
                        let target = target.to_vec();
                        self.link(&at, last, there, path, target)
                    }
                    TreeNode::File if there == Some(node) => Ok(EntryAction::Nothing),
                    TreeNode::File => {
                        let from = from.path.join(os(name));
                        self.put(&at, last, there, TreeNode::File);
                        Ok(EntryAction::HardLink { path, from })
                    }
                }
            }
        }
    }

    fn link(
        &mut self,
        at: &TreePosition,
        last: &[u8],
        there: Option<usize>,
        path: PathBuf,
        to: Vec<u8>,
    ) -> Result<EntryAction, Why> {
        link_stays(&to, at.depth())?;
        self.text_bytes += to.len();
        self.put(at, last, there, TreeNode::Link(to.clone().into()));
        Ok(EntryAction::Symlink { path, to })
    }

    fn child(&self, at: &TreePosition, name: &[u8]) -> Option<usize> {
        match &self.nodes[at.node()] {
            TreeNode::Folder(names) => names.get(name).copied(),
            _ => None,
        }
    }

    /// Puts a node where nothing is, or in place of what is there; gives its number.
    fn put(
        &mut self,
        at: &TreePosition,
        name: &[u8],
        there: Option<usize>,
        node: TreeNode,
    ) -> usize {
        if let Some(there) = there {
            self.nodes[there] = node;
            return there;
        }
        let number = self.nodes.len();
        self.nodes.push(node);
        if let TreeNode::Folder(names) = &mut self.nodes[at.node()] {
            names.insert(name.into(), number);
            self.text_bytes += name.len();
        }
        number
    }

    /// The folder of an entry, made where it is missing.
    fn walk(&mut self, names: &[Box<[u8]>]) -> Result<TreePosition, Why> {
        let mut at = TreePosition::root();
        let mut links = MAX_LINKS;
        for name in names {
            match self.child(&at, name) {
                Some(_) => at = self.enter(at, name, &mut links)?,
                None => {
                    if at.depth() >= MAX_DEPTH {
                        return Err("is deeper than 200 folders");
                    }
                    let node = self.put(&at, name, None, TreeNode::Folder(HashMap::new()));
                    at.enter(name, node);
                }
            }
        }
        Ok(at)
    }

    /// A folder that is there.
    fn find(&self, names: &[Box<[u8]>]) -> Result<TreePosition, Why> {
        let mut links = MAX_LINKS;
        names.iter().try_fold(TreePosition::root(), |at, name| {
            self.enter(at, name, &mut links)
        })
    }

    /// The folder of that name, through links.
    fn enter(&self, at: TreePosition, name: &[u8], links: &mut u32) -> Result<TreePosition, Why> {
        let at = self.reach(at, name, links)?;
        match self.nodes[at.node()] {
            TreeNode::Folder(_) => Ok(at),
            _ => Err("lies below a file"),
        }
    }

    /// What has that name, or what a link of that name leads to in the end.
    fn reach(
        &self,
        mut at: TreePosition,
        name: &[u8],
        links: &mut u32,
    ) -> Result<TreePosition, Why> {
        let lost = "lies below a link that leads to nothing that comes before it";
        let node = self.child(&at, name).ok_or(lost)?;
        let TreeNode::Link(to) = &self.nodes[node] else {
            at.enter(name, node);
            return Ok(at);
        };
        *links = links.checked_sub(1).ok_or("lies below a loop of links")?;
        for part in to.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    if at.nodes.len() == 1 {
                        return Err("lies below a link that leaves the bundle");
                    }
                    at.nodes.pop();
                    at.path.pop();
                }
                part if matches!(self.nodes[at.node()], TreeNode::Folder(_)) => {
                    at = self.reach(at, part, links)?;
                }
                _ => return Err("lies below a file"),
            }
        }
        Ok(at)
    }

    /// Every name, with what it is: `d`, `f`, or `l` and the target. For comparing with a disk.
    #[cfg(test)]
    pub(super) fn listing(&self) -> std::collections::BTreeMap<PathBuf, String> {
        let mut found = std::collections::BTreeMap::new();
        let mut open = vec![(PathBuf::new(), ROOT)];
        while let Some((path, node)) = open.pop() {
            let what = match &self.nodes[node] {
                TreeNode::Folder(names) => {
                    open.extend(
                        names
                            .iter()
                            .map(|(name, node)| (path.join(os(name)), *node)),
                    );
                    "d".to_owned()
                }
                TreeNode::File => "f".to_owned(),
                TreeNode::Link(to) => format!("l{}", String::from_utf8_lossy(to)),
            };
            found.insert(path, what);
        }
        found.remove(Path::new(""));
        found
    }
}

#[cfg(test)]
mod tests;
