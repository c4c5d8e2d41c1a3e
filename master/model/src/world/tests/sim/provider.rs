//! What the provider of the tests answers.

use super::*;

impl Sim {
    /// What the provider answers.
    pub(crate) fn call(&mut self, call: Call) -> CallAnswer {
        match call {
            Call::Launch { token } => self.call_launch(token),
            Call::Change {
                job,
                kind,
                machines,
            } => self.call_change(job, kind, &machines),
            Call::Describe => {
                self.listings += 1;
                let all = self.machines.values().flatten();
                let shown = all.filter(|it| !self.unlisted.contains(&it.id)).cloned();
                CallAnswer::Described(match self.no_listing {
                    Some(kind) => Err(failure(kind)),
                    None => Ok(Listing {
                        machines: shown.collect(),
                        unclear: self.unclear.clone(),
                    }),
                })
            }
            Call::Find(machines) => {
                let all = self.machines.values().flatten();
                let shown = all.filter(|it| machines.contains(&it.id)).cloned();
                let listing = Listing {
                    machines: shown.collect(),
                    unclear: Vec::new(),
                };
                self.finds.push(machines.clone());
                CallAnswer::Found {
                    machines,
                    result: Ok(listing),
                }
            }
            Call::Terminate(machines) => {
                self.terminations.push(machines.clone());
                let result = self.terminate(&machines);
                CallAnswer::Terminated { machines, result }
            }
            Call::Prepare => {
                self.prepares += 1;
                CallAnswer::Prepared(match self.no_prerequisites {
                    Some(kind) => Err(failure(kind)),
                    None => Ok(Prerequisites {
                        notices: self.notices.clone(),
                        ..Prerequisites::default()
                    }),
                })
            }
            Call::AssignAddresses(machines) => {
                let given = |(id, name): (MachineId, InstanceName)| {
                    let address = ElasticIp {
                        allocation: format!("eipalloc-{name}"),
                        address: format!("192.0.2.{}", name.as_str().len()),
                    };
                    let result = self
                        .no_address
                        .map_or(Ok(address), |kind| Err(failure(kind)));
                    (id, result)
                };
                CallAnswer::Addressed(machines.into_iter().map(given).collect())
            }
            Call::Explain(machines) => {
                let text = "state checks: instance impaired".to_owned();
                CallAnswer::Explained(machines.into_iter().map(|id| (id, text.clone())).collect())
            }
            Call::Start(machines) => {
                self.start_calls += 1;
                let starts = !self.no_start;
                for machine in self
                    .machines
                    .values_mut()
                    .flatten()
                    .filter(|m| starts && machines.contains(&m.id))
                {
                    machine.state = MachineState::Running;
                }
                CallAnswer::Started(None)
            }
            Call::SetChallenges(values) => {
                let set = |(id, value): (MachineId, Secret)| match self.no_tags {
                    Some(kind) => (id, Err(failure(kind))),
                    None => {
                        self.tags.insert(id.clone(), value.0);
                        (id, Ok(()))
                    }
                };
                CallAnswer::ChallengesSet(values.into_iter().map(set).collect())
            }
            Call::RemoveChallenges(machines) => {
                let error = self.no_tags.map(failure);
                if error.is_none() {
                    self.tags.retain(|id, _| !machines.contains(id));
                }
                CallAnswer::ChallengesRemoved { machines, error }
            }
            Call::SetNames(batches) => {
                let machines: Vec<MachineId> =
                    batches.iter().flatten().map(|(id, _)| id.clone()).collect();
                self.names.push(machines.clone());
                let result = self.no_name.map_or(Ok(()), |kind| Err(failure(kind)));
                CallAnswer::Named { machines, result }
            }
            Call::Cleanup => CallAnswer::Cleaned(Ok(Vec::new())),
        }
    }

    /// What a call about the cluster of these tests came to.
    pub(crate) fn answer(&mut self, answer: CallAnswer) -> Answer {
        self.input(Input::Answered {
            cluster: cluster_id(),
            answer,
        })
    }

    pub(crate) fn call_launch(&mut self, token: String) -> CallAnswer {
        self.calls += 1;
        let batch = self.world.clusters[&cluster()].batches[&token].clone();
        let kind = batch
            .spec
            .machine
            .types
            .get(batch.choice.kind)
            .cloned()
            .unwrap_or_default();
        let lost = std::mem::take(&mut self.lose);
        let result = match self.refuse.get(&kind) {
            Some(kind) if *kind != ErrorKind::OtherZone || batch.zone.is_none() => {
                Err(failure(*kind))
            }
            _ => Ok(self
                .machines
                .entry(token.clone())
                .or_insert_with(|| {
                    (0..batch.members.len())
                        .map(|i| machine(&token, i))
                        .collect()
                })
                .clone()),
        };
        let result = match lost {
            true => Err(CallFailure {
                leftovers: Leftovers::Unknown,
                ..failure(ErrorKind::Unavailable)
            }),
            false => result,
        };
        CallAnswer::Launched { token, result }
    }

    /// Machines are stopped and started at once, and refused where they are protected.
    pub(crate) fn call_change(
        &mut self,
        job: JobId,
        kind: JobKind,
        machines: &[MachineId],
    ) -> CallAnswer {
        self.changes.push((kind, machines.to_vec()));
        let mut answer = Terminations::default();
        for machine in self.machines.values_mut().flatten() {
            if !machines.contains(&machine.id) {
                continue;
            }
            if machine.state == MachineState::Terminated {
                answer.unknown.push(machine.id.clone());
                continue;
            }
            if self.protected.contains(&machine.id) {
                let refused = (machine.id.clone(), failure(ErrorKind::Other));
                answer.refused.push(refused);
                continue;
            }
            match kind {
                JobKind::Start => machine.state = MachineState::Running,
                JobKind::Stop => machine.state = MachineState::Stopped,
                _ => {}
            }
        }
        let (result, error) = match self.no_termination {
            Some(kind) => (Err(failure(kind)), Some(failure(kind))),
            None => (Ok(answer), None),
        };
        CallAnswer::Changed { job, result, error }
    }

    /// As a provider ends machines: those that it lacks are unknown, protected ones are refused.
    pub(crate) fn terminate(
        &mut self,
        machines: &[MachineId],
    ) -> Result<Terminations, CallFailure> {
        if let Some(kind) = self.no_termination {
            return Err(failure(kind));
        }
        let mut answer = Terminations::default();
        for id in machines {
            let mut all = self.machines.values_mut().flatten();
            match all.find(|machine| machine.id == *id) {
                None => answer.unknown.push(id.clone()),
                Some(_) if self.protected.contains(id) => {
                    answer.refused.push((id.clone(), failure(ErrorKind::Other)));
                }
                Some(machine) => machine.state = MachineState::Terminated,
            }
        }
        Ok(answer)
    }
}
