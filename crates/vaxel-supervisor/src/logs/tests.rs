use super::*;

#[test]
fn a_line_is_cut_with_a_mark() {
    assert_eq!(cut("abcdef", 4, 0), "abcd … [2 bytes cut]");
    assert_eq!(cut("abc", 4, 0), "abc");
}
