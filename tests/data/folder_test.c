/* Photos without captions. */
#include "data/folder.h"
#include "support.h"

static void lists_photos_by_name(void **state)
{
    static const char *const files[] = {"b.jpg", "a.JPEG", "c.txt", "jpg", ".jpg", "B.jpeg"};
    char *folder = *state;
    ct_dataset *dataset;
    assert_int_equal(ct_dataset_open_folder(folder, &dataset), CT_ERR_IO);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        write_bytes(in_folder(folder, files[i]), "", 0);
    assert_ok(ct_dataset_open_folder(folder, &dataset));
    assert_contents(dataset, "B.jpeg:; a.JPEG:; b.jpg:");
    assert_string_equal(dataset->images, folder);
    assert_int_equal(dataset->photos[0].split, CT_SPLIT_NONE);
    ct_dataset_destroy(dataset);
    assert_int_equal(ct_dataset_open_folder(in_folder(folder, "none"), &dataset), CT_ERR_IO);
}

int run_folder_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lists_photos_by_name, folder_setup, folder_teardown)};
    return cmocka_run_group_tests_name("folder", tests, NULL, NULL);
}
