/* The folder of a run:
 *   config.yaml                    what it was started with, all keys
 *   checkpoint-000000420.safetensors   after that many steps
 *   metrics.jsonl, report.html */
#ifndef CT_TRAIN_RUN_FOLDER_H
#define CT_TRAIN_RUN_FOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define CT_PATH_BYTES 4096

/* <folder>/<name>; CT_ERR_ARGUMENT when that is too long. */
CT_NODISCARD ct_status ct_run_path(const char *folder, const char *name, char path[CT_PATH_BYTES]);

CT_NODISCARD ct_status ct_run_checkpoint_path(const char *folder, int64_t step,
                                              char path[CT_PATH_BYTES]);

/* *steps = the steps of the folder's checkpoints, descending, freed with free(). A folder that is
 * not there has none. Temporary files of a killed run do not count. */
CT_NODISCARD ct_status ct_run_list_checkpoints(const char *folder, int64_t **steps, size_t *count);

/* The newest checkpoint that can be opened (a damaged one is reported and passed over).
 * path[0] = '\0' when there is none. */
CT_NODISCARD ct_status ct_run_newest_checkpoint(const char *folder, char path[CT_PATH_BYTES]);

/* Removes all but the newest `keep` checkpoints (0: keeps all). */
CT_NODISCARD ct_status ct_run_prune_checkpoints(const char *folder, int64_t keep);

/* True when the folder already holds a run. */
bool ct_run_exists(const char *folder);

/* Removes the checkpoints, metrics and report of a run (nothing else). */
CT_NODISCARD ct_status ct_run_clear(const char *folder);

#endif
