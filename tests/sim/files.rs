//! The files of a [`World`](crate::world::World): what is open stays, whatever its name becomes.
use std::collections::HashMap;

#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) names: HashMap<String, u64>,
    pub(crate) data: HashMap<u64, Vec<u8>>,
    pub(crate) next: u64,
}

impl Files {
    pub(crate) fn read(&self, name: &str) -> Option<Vec<u8>> {
        self.data.get(self.names.get(name)?).cloned()
    }

    /// Another file of this name, or none.
    pub(crate) fn replace(&mut self, name: &str, data: Option<Vec<u8>>) {
        self.names.remove(name);
        if let Some(data) = data {
            self.next += 1;
            self.names.insert(name.to_owned(), self.next);
            self.data.insert(self.next, data);
        }
    }
}
