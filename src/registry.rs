//! The schema registry: says which forms of records it has and whether the service's fit them, and
//! registers the service's.
//! Spoken over the Confluent-compatible API, which Confluent's and Apicurio's registries have.
//!
//! Registering twice adds nothing: any number of instances may register at once.

mod client;

use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::RegistrySettings;
use crate::schemas::{self, Topics};
use client::Client;

/// The level set in a registry that has none of its own: new forms must read old records.
const LEVEL: &str = "BACKWARD";
/// The level of a subject whose forms are not compared.
const NO_LEVEL: &str = "NONE";

/// A schema under the name that the registry has it by.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Topic and kind of record: `wallet-events-WalletCredited`.
    pub name: String,
    pub topic: String,
    schema: Value,
}

/// What the registry says of one subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub subject: String,
    pub state: State,
    /// Why it does not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It has this very schema.
    Registered,
    /// It does not know the subject.
    New,
    /// It has others, which this one fits.
    Compatible,
    /// It has others and compares none of them.
    Unchecked,
    Incompatible,
}

/// Why the schemas are not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("{registry} does not answer: {cause}")]
    Away { registry: String, cause: String },
    #[error("{registry} answers {status} to {what}: {message}")]
    Refused { registry: String, status: u16, what: String, message: String },
    #[error("{}", incompatible(registry, subjects))]
    Incompatible { registry: String, subjects: Vec<Finding> },
}

fn incompatible(registry: &str, subjects: &[Finding]) -> String {
    let mut text = format!(
        "the registry {registry} has forms of these records that this version's would break for \
         their readers:"
    );
    for Finding { subject, reason, .. } in subjects {
        text.push_str(&format!("\n  {subject}: {}", reason.as_deref().unwrap_or("incompatible")));
    }
    text.push_str(
        "\nRun the version that the registry knows. Or, where every reader is ready for the new \
         form, delete the subject there (DELETE /subjects/NAME) and start again; or unset \
         SCHEMA_REGISTRY_URL. `wallex schemas check` asks again",
    );
    text
}

/// Every schema under its subject, for topics of these names.
pub fn subjects(topics: &Topics) -> Vec<Subject> {
    let subject = |schema: schemas::Schema| {
        let topic = topics.of(schema.channel)?.name.clone();
        Some(Subject { name: format!("{topic}-{}", schema.name), topic, schema: schema.value })
    };
    schemas::all().into_iter().filter_map(subject).collect()
}

impl Subject {
    pub fn schema(&self) -> &Value {
        &self.schema
    }

    /// The body of a request about it.
    fn body(&self) -> Value {
        json!({"schemaType": "JSON", "schema": self.schema.to_string()})
    }
}

/// One registry.
#[derive(Debug)]
pub struct Registry {
    client: Client,
}

impl Registry {
    pub fn new(settings: &RegistrySettings) -> Self {
        Self { client: Client::new(settings.clone()) }
    }

    /// What it says of each; changes nothing.
    pub async fn check(&self, subjects: &[Subject]) -> Result<Vec<Finding>, RegistryError> {
        try_join_all(subjects.iter().map(|subject| self.check_one(subject))).await
    }

    /// Registers those that it does not have, all or, where one does not fit, none. The count of
    /// those that are new to it.
    pub async fn register(&self, subjects: &[Subject]) -> Result<usize, RegistryError> {
        // A level that is set later would come too late for what is there already.
        let levels = subjects.iter().map(|subject| self.ensure_level(subject));
        try_join_all(levels).await?;
        let findings = self.check(subjects).await?;
        let broken: Vec<Finding> =
            findings.iter().filter(|f| f.state == State::Incompatible).cloned().collect();
        if !broken.is_empty() {
            return Err(self.incompatible(broken));
        }
        let mut new = 0;
        for (subject, finding) in subjects.iter().zip(findings) {
            if finding.state != State::Registered {
                self.register_one(subject).await?;
                new += 1;
            }
            if finding.state == State::New {
                // Not every registry keeps a level for what it does not have yet.
                self.ensure_level(subject).await?;
            }
        }
        Ok(new)
    }

    async fn check_one(&self, subject: &Subject) -> Result<Finding, RegistryError> {
        let name = &subject.name;
        let found = |state, reason| Finding { subject: name.clone(), state, reason };
        let known = self.client.post(&format!("/subjects/{name}"), &subject.body()).await?;
        if known.status == 200 {
            return Ok(found(State::Registered, None));
        }
        known.unless_missing()?;
        let path = format!("/compatibility/subjects/{name}/versions/latest?verbose=true");
        let answer = self.client.post(&path, &subject.body()).await?;
        let Some(answer) = answer.unless_missing()? else { return Ok(found(State::New, None)) };
        let verdict: Verdict = answer.json()?;
        if !verdict.is_compatible {
            return Ok(found(State::Incompatible, Some(verdict.cause())));
        }
        let unchecked = self.level(name).await?.is_none();
        Ok(found(if unchecked { State::Unchecked } else { State::Compatible }, None))
    }

    async fn register_one(&self, subject: &Subject) -> Result<(), RegistryError> {
        let path = format!("/subjects/{}/versions", subject.name);
        let answer = self.client.post(&path, &subject.body()).await?;
        if answer.status == 409 {
            // Another client registered another form since it was checked.
            let (reason, state) = (Some(answer.message()), State::Incompatible);
            let finding = Finding { subject: subject.name.clone(), state, reason };
            return Err(self.incompatible(vec![finding]));
        }
        answer.ok().map(drop)
    }

    /// Has the registry compare what is registered, where it has no level of its own.
    async fn ensure_level(&self, subject: &Subject) -> Result<(), RegistryError> {
        if self.level(&subject.name).await?.is_some() {
            return Ok(());
        }
        let path = format!("/config/{}", subject.name);
        self.client.put(&path, &json!({"compatibility": LEVEL})).await?.ok().map(drop)
    }

    /// By which rule the forms of a subject are compared; none: they are not.
    async fn level(&self, subject: &str) -> Result<Option<String>, RegistryError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Level {
            compatibility_level: String,
        }
        let own = self.client.get(&format!("/config/{subject}")).await?;
        let answer = match own.unless_missing()? {
            Some(own) => own,
            None => self.client.get("/config").await?.ok()?,
        };
        let Level { compatibility_level: level } = answer.json()?;
        Ok(Some(level).filter(|level| level != NO_LEVEL))
    }

    fn incompatible(&self, subjects: Vec<Finding>) -> RegistryError {
        RegistryError::Incompatible { registry: self.client.settings().to_string(), subjects }
    }
}

/// Whether a schema fits, and why not: Confluent's registry has a list, Apicurio's a sentence.
#[derive(Deserialize)]
struct Verdict {
    is_compatible: bool,
    reason: Option<String>,
    #[serde(default)]
    messages: Vec<String>,
}

impl Verdict {
    fn cause(self) -> String {
        if !self.messages.is_empty() {
            return self.messages.join("; ");
        }
        let reason = self.reason.unwrap_or_default();
        let list = reason.split_once("list of diff types: [").and_then(|(_, rest)| {
            let (list, _) = rest.split_once(']')?;
            Some(list.to_owned())
        });
        list.unwrap_or(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_subject_place_and_what_to_do() {
        let apicurio = r#"{"is_compatible":false,"reason":"Incompatible artifact: S [JSON], num of incompatible diffs: {1}, list of diff types: [SUBSCHEMA_TYPE_CHANGED at /properties/amount] Causes: SUBSCHEMA_TYPE_CHANGED at /properties/amount"}"#;
        let confluent =
            r#"{"is_compatible":false,"messages":["{oldSchemaVersion: 1}","at '#/x'"]}"#;
        let cause = |json: &str| serde_json::from_str::<Verdict>(json).unwrap().cause();
        assert_eq!(cause(apicurio), "SUBSCHEMA_TYPE_CHANGED at /properties/amount");
        assert_eq!(cause(confluent), "{oldSchemaVersion: 1}; at '#/x'");
        let finding = Finding {
            subject: "t-WalletCredited".to_owned(),
            state: State::Incompatible,
            reason: Some(cause(apicurio)),
        };
        let told = incompatible("http://registry:80", &[finding]);
        for part in ["t-WalletCredited", "at /properties/amount", "DELETE /subjects", "http://reg"]
        {
            assert!(told.contains(part), "{told}");
        }
    }
}
