//! What every engine must do, one body each.

use crate::store::Store;

/// Runs each of these bodies on every engine. PostgreSQL is that of `VAXEL_TEST_POSTGRES`; without it
/// those tests say that they were skipped.
macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test]
                async fn $name() {
                    let (_dir, store) = crate::tests::fresh();
                    super::$name(&store).await;
                    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
                }
            )*
        }
        mod postgres {
            $(
                #[tokio::test]
                async fn $name() {
                    let Some(schema) = crate::tests::postgres::Schema::fresh() else {
                        return;
                    };
                    super::$name(&schema.open()).await;
                }
            )*
        }
    };
}
pub(super) use contract;

/// How many audit lines and change events there are.
pub(super) async fn traces(store: &Store) -> (usize, usize) {
    let lines = store.audit_lines(1_000, None).await.unwrap();
    let events = store.changes_after(0, 1_000).await.unwrap();
    (lines.len(), events.len())
}
