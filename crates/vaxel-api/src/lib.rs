//! Translates; contains no rule.
