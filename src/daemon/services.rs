//! The table of services, by id and by name.
use super::service::Service;
use crate::process::journal_format::checksum;
use crate::service::spec::Id;
use std::collections::BTreeSet;

#[derive(Debug, Default)]
pub(crate) struct Services {
    by_id: Vec<Option<Box<Service>>>,
    /// Checksums of the names: the names themselves would be kept twice.
    by_name: BTreeSet<(u64, Id)>,
}

impl Services {
    pub(crate) fn get(&self, id: Id) -> Option<&Service> {
        self.by_id.get(id as usize)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, id: Id) -> Option<&mut Service> {
        self.by_id.get_mut(id as usize)?.as_deref_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Service> {
        self.by_id.iter().filter_map(Option::as_deref)
    }

    /// Every id, to go through while the services change.
    pub(crate) fn ids(&self) -> Vec<Id> {
        self.iter().map(|service| service.id).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(crate) fn id_of(&self, name: &str) -> Option<Id> {
        self.named(name).map(|service| service.id)
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Service> {
        let sum = checksum(name.as_bytes());
        let alike = self.by_name.range((sum, 0)..=(sum, Id::MAX));
        alike.filter_map(|(_, id)| self.get(*id)).find(|service| service.name() == name)
    }

    /// The service of this name, or all instances of the group.
    pub(crate) fn called(&self, name: &str) -> Vec<&Service> {
        let is_in =
            |service: &Service| service.definition.spec.held.instance_of.as_deref() == Some(name);
        match self.named(name).filter(|service| !is_in(service)) {
            Some(service) => vec![service],
            None => self.iter().filter(|service| is_in(service)).collect(),
        }
    }

    /// On whom a service of this name depends, or any of the group.
    pub(crate) fn dependencies(&self, name: &str) -> Vec<&str> {
        let all = self.called(name).into_iter();
        all.flat_map(|it| &it.definition.spec.checks.depends_on[..]).map(String::as_str).collect()
    }

    pub(crate) fn insert(&mut self, mut service: Service) {
        let index = service.id as usize;
        if self.by_id.len() <= index {
            self.by_id.resize_with(index + 1, || None);
        }
        // Services of one file are much alike.
        if let Some(before) = self.by_id[..index].iter().flatten().next_back() {
            service.definition.spec.share(&before.definition.spec);
            service.machine.share_policy(&service.definition.spec.policy);
        }
        self.by_name.insert((checksum(service.name().as_bytes()), service.id));
        self.by_id[index] = Some(Box::new(service));
    }

    pub(crate) fn remove(&mut self, id: Id) -> Option<Box<Service>> {
        let service = self.by_id.get_mut(id as usize)?.take()?;
        self.by_name.remove(&(checksum(service.name().as_bytes()), id));
        Some(service)
    }
}
