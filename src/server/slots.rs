//! The seats of an event loop, and the tokens by which epoll names them.
//!
//! A token carries the generation of its seat, so that an event or a wake that
//! comes late, for a connection that has closed, meets nobody.

/// Which descriptor of a seat an event is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Which {
    Client,
    Other,
    Exit,
}

/// 2 bits which, 30 bits generation, 32 bits place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Token {
    place: u32,
    generation: u32,
    which: u8,
}

const GENERATIONS: u32 = (1 << 30) - 1;

impl Token {
    pub(super) const INBOX: Self = Self {
        place: u32::MAX,
        generation: 0,
        which: 0,
    };
    pub(super) const LISTENER: Self = Self {
        place: u32::MAX,
        generation: 0,
        which: 1,
    };

    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.place) | u64::from(self.generation) << 32 | u64::from(self.which) << 62
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        let low = |value: u64| u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0);
        let which = if bits >> 63 == 1 {
            2
        } else {
            u8::from(bits >> 62 & 1 == 1)
        };
        Self {
            place: low(bits),
            generation: low(bits >> 32) & GENERATIONS,
            which,
        }
    }

    pub(super) fn which(self) -> Which {
        match self.which {
            0 => Which::Client,
            1 => Which::Other,
            _ => Which::Exit,
        }
    }

    pub(super) fn client(self) -> Self {
        Self { which: 0, ..self }
    }

    pub(super) fn other(self) -> Self {
        Self { which: 1, ..self }
    }

    pub(super) fn exit(self) -> Self {
        Self { which: 2, ..self }
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// Places that are reused, each time with another generation.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    filled: usize,
}

impl<T> Slots<T> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            filled: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// A token for a place that will be filled or given back.
    pub(super) fn reserve(&mut self) -> Token {
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                value: None,
            });
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let generation = self.slot(place).map_or(0, |slot| slot.generation);
        Token {
            place,
            generation,
            which: 0,
        }
    }

    pub(super) fn fill(&mut self, token: Token, value: T) {
        if let Some(slot) = self.slot(token.place) {
            slot.value = Some(value);
            self.filled += 1;
        }
    }

    pub(super) fn give_back(&mut self, token: Token) {
        if let Some(slot) = self.slot(token.place) {
            slot.generation = (slot.generation + 1) & GENERATIONS;
            self.free.push(token.place);
        }
    }

    pub(super) fn get(&mut self, token: Token) -> Option<&mut T> {
        self.slot(token.place)
            .filter(|slot| slot.generation == token.generation)
            .and_then(|slot| slot.value.as_mut())
    }

    pub(super) fn remove(&mut self, token: Token) -> Option<T> {
        let slot = self
            .slot(token.place)
            .filter(|slot| slot.generation == token.generation)?;
        let value = slot.value.take()?;
        self.filled -= 1;
        self.give_back(token);
        Some(value)
    }

    /// Those that are filled.
    pub(super) fn tokens(&self) -> Vec<Token> {
        let filled = (0..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.value.is_some());
        let token = |(place, slot): (u32, &Slot<T>)| Token {
            place,
            generation: slot.generation,
            which: 0,
        };
        filled.map(token).collect()
    }

    fn slot(&mut self, place: u32) -> Option<&mut Slot<T>> {
        self.slots.get_mut(usize::try_from(place).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_way_through_the_kernel() {
        for which in 0..3 {
            let token = Token {
                place: 4_000_000_000,
                generation: GENERATIONS,
                which,
            };
            assert_eq!(Token::from_bits(token.to_bits()), token);
        }
        assert_eq!(Token::from_bits(Token::INBOX.to_bits()), Token::INBOX);
        assert_eq!(Token::from_bits(Token::LISTENER.to_bits()), Token::LISTENER);
    }

    #[test]
    fn a_late_token_meets_nobody() {
        let mut slots = Slots::new();
        let first = slots.reserve();
        slots.fill(first, "first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.reserve();
        slots.fill(second, "second");
        assert_eq!(second.place, first.place);
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&mut "second"));
    }

    #[test]
    fn a_place_given_back_is_used_again() {
        let mut slots = Slots::<()>::new();
        let token = slots.reserve();
        slots.give_back(token);
        assert_ne!(slots.reserve(), token);
        assert!(slots.is_empty());
    }
}
