//! Which files of a bundle are templates.

use std::path::{Path, PathBuf};

use super::{ROOT, Tree, TreeNode, os};

/// Ends the names of files that are rendered on the machine.
pub const TEMPLATE: &str = ".j2";

impl Tree {
    /// Every file that is a template, by its path, in the order of their names.
    pub fn templates(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        self.templates_below(ROOT, Path::new(""), &mut found);
        found.sort();
        found
    }

    fn templates_below(&self, node: usize, path: &Path, found: &mut Vec<PathBuf>) {
        let TreeNode::Folder(names) = &self.nodes[node] else {
            return;
        };
        for (name, node) in names {
            let path = path.join(os(name));
            match &self.nodes[*node] {
                TreeNode::Folder(_) => self.templates_below(*node, &path, found),
                TreeNode::File if is_template(name) => found.push(path),
                TreeNode::File | TreeNode::Link(_) => {}
            }
        }
    }
}

/// Something stands before the ending: `.j2` alone would become a file without a name.
fn is_template(name: &[u8]) -> bool {
    name.len() > TEMPLATE.len() && name.ends_with(TEMPLATE.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    #[test]
    fn only_files_with_the_ending_are_templates() {
        let mut tree = Tree::new(Limits {
            bytes: 1,
            entries: 100,
        });
        for path in ["d.j2/x", "etc/b.conf.j2", "a.j2", "etc/.j2", "etc/c.j2.txt"] {
            tree.file(Path::new(path)).expect("a file");
        }
        tree.symlink(Path::new("l.j2"), Path::new("a.j2"))
            .expect("a link");
        let names = ["a.j2", "etc/b.conf.j2"].map(PathBuf::from);
        assert_eq!(tree.templates(), names);
    }
}
