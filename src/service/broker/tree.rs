//! Patterns arranged by their tokens, so that a subject finds those that select
//! it without looking at the others.

use std::collections::HashMap;

use crate::frame::{Pattern, Subject};

/// A tree of patterns, each with the entries that were put under it.
#[derive(Debug)]
pub(super) struct Tree<T> {
    root: Node<T>,
}

#[derive(Debug)]
struct Node<T> {
    children: HashMap<Box<str>, Node<T>>,
    any: Option<Box<Node<T>>>,
    /// Patterns that end here.
    here: Vec<T>,
    /// Patterns that end here with `>`.
    rest: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            children: HashMap::new(),
            any: None,
            here: Vec::new(),
            rest: Vec::new(),
        }
    }
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self {
            root: Node::default(),
        }
    }
}

impl<T: Clone> Tree<T> {
    /// Puts `entry` under `pattern`.
    pub(super) fn insert(&mut self, pattern: Pattern<'_>, entry: T) {
        let mut node = &mut self.root;
        for token in pattern.tokens() {
            node = match token {
                ">" => {
                    node.rest.push(entry);
                    return;
                }
                "*" => node.any.get_or_insert_default(),
                name => {
                    if !node.children.contains_key(name) {
                        node.children.insert(name.into(), Node::default());
                    }
                    match node.children.get_mut(name) {
                        Some(child) => child,
                        None => return,
                    }
                }
            };
        }
        node.here.push(entry);
    }

    /// Takes away what `is` says yes to, under `pattern`, and branches that are
    /// empty then.
    pub(super) fn remove(&mut self, pattern: Pattern<'_>, is: impl Fn(&T) -> bool) {
        let tokens: Vec<&str> = pattern.tokens().collect();
        self.root.remove(&tokens, &is);
    }

    /// Puts every entry whose pattern selects `subject` into `found`, in no
    /// particular order.
    pub(super) fn find(&self, subject: Subject<'_>, found: &mut Vec<T>) {
        let tokens: Vec<&str> = subject.tokens().collect();
        self.root.find(&tokens, found);
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.root.is_empty()
    }
}

impl<T: Clone> Node<T> {
    fn is_empty(&self) -> bool {
        self.children.is_empty()
            && self.any.is_none()
            && self.here.is_empty()
            && self.rest.is_empty()
    }

    // At most 16 deep: a pattern has no more tokens.
    fn remove(&mut self, tokens: &[&str], is: &impl Fn(&T) -> bool) {
        match tokens.split_first() {
            None => self.here.retain(|entry| !is(entry)),
            Some((&">", _)) => self.rest.retain(|entry| !is(entry)),
            Some((&"*", later)) => {
                if let Some(child) = &mut self.any {
                    child.remove(later, is);
                }
                self.any.take_if(|child| child.is_empty());
            }
            Some((name, later)) => {
                if let Some(child) = self.children.get_mut(*name) {
                    child.remove(later, is);
                    if child.is_empty() {
                        self.children.remove(*name);
                    }
                }
            }
        }
    }

    fn find(&self, tokens: &[&str], found: &mut Vec<T>) {
        let Some((name, later)) = tokens.split_first() else {
            found.extend_from_slice(&self.here);
            return;
        };
        found.extend_from_slice(&self.rest);
        if let Some(child) = self.children.get(*name) {
            child.find(later, found);
        }
        if let Some(child) = &self.any {
            child.find(later, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All patterns of up to `depth` tokens over a small alphabet.
    fn patterns(depth: usize) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut level = vec![String::new()];
        for _ in 0..depth {
            let mut next = Vec::new();
            for head in &level {
                for token in ["a", "b", "*", ">"] {
                    let dot = if head.is_empty() { "" } else { "." };
                    next.push(format!("{head}{dot}{token}"));
                }
            }
            next.retain(|text| Pattern::new(text.as_bytes()).is_some());
            all.extend(next.iter().cloned());
            level = next;
        }
        all.retain(|text| !text.is_empty());
        all
    }

    #[test]
    fn finds_exactly_what_the_pattern_itself_says() {
        let patterns = patterns(4);
        let mut tree = Tree::default();
        for text in &patterns {
            tree.insert(Pattern::new(text.as_bytes()).unwrap(), text.clone());
        }
        for text in &patterns {
            let Some(subject) = Subject::new(text.as_bytes()) else {
                continue;
            };
            let mut found = Vec::new();
            tree.find(subject, &mut found);
            found.sort();
            let mut expect: Vec<String> = patterns.clone();
            expect.retain(|p| Pattern::new(p.as_bytes()).unwrap().matches(subject));
            expect.sort();
            assert_eq!(found, expect, "{text}");
        }
        for text in &patterns {
            tree.remove(Pattern::new(text.as_bytes()).unwrap(), |entry| {
                entry == text
            });
        }
        assert!(tree.is_empty(), "branches are left over");
    }
}
