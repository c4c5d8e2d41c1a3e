//! What a database has before masters share it, for whoever sets a fleet up. Changes nothing.

use crate::connect::EngineLink;
use crate::store::{ALL, Postgres};
use crate::{Error, schema};

/// What is in a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundDatabase {
    /// No master has been here: it has no tables, or nothing in them.
    Empty,
    /// The keys of a fleet, sealed.
    Keys,
}

impl Postgres {
    /// Looks at it.
    ///
    /// # Errors
    /// [`Error::UnsharedKeys`] when it has records of a master whose keys are elsewhere; when it can't be read.
    pub async fn found(&self) -> Result<FoundDatabase, Error> {
        let link = EngineLink::new(&self.url)?;
        if schema::id(&link).await?.is_none() {
            return Ok(FoundDatabase::Empty);
        }
        if schema::sealed(&link).await?.is_some() {
            return Ok(FoundDatabase::Keys);
        }
        let sql = "SELECT (SELECT served_by FROM owners WHERE cluster = $1), \
            EXISTS (SELECT FROM owners) OR EXISTS (SELECT FROM masters) \
            OR EXISTS (SELECT FROM clusters) OR EXISTS (SELECT FROM jobs)";
        let what = "look for records in";
        let rows = link.read(what, sql, &[&ALL]).await?;
        let (owner, is_used): (Option<String>, bool) = (rows[0].get(0), rows[0].get(1));
        match is_used {
            false => Ok(FoundDatabase::Empty),
            true => Err(Error::UnsharedKeys {
                place: link.place(),
                owner: owner
                    .filter(|owner| !owner.is_empty())
                    .unwrap_or_else(|| "it has not served yet".to_owned()),
            }),
        }
    }

    /// Where it is, for people.
    pub fn place(&self) -> String {
        self.url.to_string()
    }
}
