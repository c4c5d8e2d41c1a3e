//! Where a bundle's script is.

use tar::EntryType;

use crate::samples::*;
use crate::*;

#[test]
fn a_script_is_a_file_or_leads_to_one() {
    use EntryType::{Directory, Symlink};
    let folder = |items: &[SampleItem]| {
        let (tree, _) = inspect(&tar(items)[..], LIMITS, None).unwrap();
        tree.script_folder()
            .map(|folder| folder.display().to_string())
    };
    let no_file = |path: &str| Err(NoScript::NoFile(path.into()));
    let (top, inner) = (file("bootstrap.sh", b""), file("a/bootstrap.sh", b""));
    let link = |name, to| item(Symlink, name, to);
    for (items, wanted) in [
        (vec![top.clone()], Ok("".to_owned())),
        (vec![inner.clone()], Ok("a".to_owned())),
        (vec![inner.clone(), file("b", b"")], Err(NoScript::Missing)),
        (vec![], Err(NoScript::Missing)),
        (
            vec![link("bootstrap.sh", "missing.sh")],
            no_file("bootstrap.sh"),
        ),
        (vec![link("a/bootstrap.sh", "x")], no_file("a/bootstrap.sh")),
        (
            vec![item(Directory, "bootstrap.sh", "")],
            no_file("bootstrap.sh"),
        ),
        (
            vec![
                link("bootstrap.sh", "x"),
                link("x", "y/z"),
                file("y/z", b""),
            ],
            Ok("".to_owned()),
        ),
        (
            vec![link("bootstrap.sh", "a/bootstrap.sh"), inner],
            Ok("".to_owned()),
        ),
    ] {
        assert_eq!(folder(&items), wanted, "{items:?}");
    }
}
