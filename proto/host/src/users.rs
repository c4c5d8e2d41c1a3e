//! Names of users and groups by the files of the machine, where there is no NSS to ask.

use std::fs;
use std::path::Path;

/// The name that `file`, in the format of passwd(5) or group(5), has for an id; `None` for one that it does not know.
#[must_use]
pub fn name_of(id: u32, file: &Path) -> Option<String> {
    name_in(id, &fs::read_to_string(file).ok()?).map(str::to_owned)
}

/// [`name_of`] in the text of such a file.
#[must_use]
pub fn name_in(id: u32, text: &str) -> Option<&str> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_its_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("group");
        assert_eq!(name_of(27, &file), None);
        fs::write(&file, "broken\nroot:x:0:\nsudo:x:27:admin\n").expect("writes");
        assert_eq!(name_of(27, &file).as_deref(), Some("sudo"));
        assert_eq!(name_of(2, &file), None);
    }
}
