"""Faults put into the program on purpose, one at a time: for each of them a test must fail.

`scripts/torture --mutants` copies the tree, puts one fault into the copy, runs the tests
that should notice, and says killed or survived. A fault is a text of the program and what takes its place.
Where the text is not there exactly once, the program was changed: the pattern is to be written anew. The tests
must pass on the copy without a fault first, else each of them would be killed by whatever fails anyway.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = Path("daemon") / "trapsync"
WITHOUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")


@dataclass(frozen=True)
class Mutant:
    """One fault: what it does, where (`before` is in `file` once), and what notices it.

    `tests` are files, or single tests where the others of their file take long or depend on a quiet machine.
    """

    fault: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "a run of a clock that was trusted and years behind makes slots of years",
        "effort/reasons.py",
        " and run.began.at >= WRITTEN",
        "",
        ("test_effort.py::test_a_clock_that_is_wrong_for_a_while_makes_no_slots_of_years_and_none_twice",),
    ),
    Mutant(
        "the last slot that is asked about takes no picture of the one after it",
        "effort/ledger.py",
        "min(until + around, self._now.at)",
        "until",
        ("test_effort.py::test_slots_are_the_same_whatever_span_is_asked_for",),
    ),
    Mutant(
        "single runs are lost where the time of the first is not known",
        "catalog/runs.py",
        "        if not is_placed:\n",
        "        if is_placed is None:\n",
        ("test_effort.py::test_single_runs_are_known_though_the_time_of_the_first_never_was",),
    ),
    Mutant(
        "rclone overwrites what lies there",
        "destinations/rclone/__init__.py",
        '    "--immutable",\n',
        "",
        ("test_rclone.py::test_one_conflict_of_a_batch_costs_only_itself",),
    ),
    Mutant(
        "any shorter file at an rclone storage is taken for a beginning of the image",
        "destinations/rclone/__init__.py",
        "if done.code or done.output != own:",
        "if done.code:",
        ("test_rclone.py::test_a_shorter_file_that_is_no_beginning_of_it_stays",),
    ),
    Mutant(
        "other bytes of the same size are taken for the image, whatever their checksum",
        "destinations/rclone/__init__.py",
        "row.size != image.size or (row.hash and wanted and row.hash != wanted)",
        "row.size != image.size",
        ("test_rclone.py::test_a_checksum_of_another_kind_proves_an_image_whose_file_has_it",),
    ),
    Mutant(
        "the checksum of a file that changed proves the image",
        "destinations/rclone/__init__.py",
        "name in whole and whole[name].hash == image.sha256",
        "name in whole",
        ("test_rclone.py::test_a_checksum_of_another_kind_proves_an_image_whose_file_has_it",),
    ),
    Mutant(
        "a checksum that rclone wrote down itself is a proof",
        "destinations/rclone/remotes.py",
        '"azureblob": ("md5", False)',
        '"azureblob": ("md5", True)',
        ("test_rclone.py::test_a_checksum_counts_only_where_the_server_computed_it",),
    ),
    Mutant(
        "a renewed login makes another place",
        "destinations/rclone/remotes.py",
        "if not _NOT_THE_PLACE.search(key):",
        "if key:",
        (
            "test_rclone.py::test_another_server_or_account_under_the_same_name_is_another_place_and_another_password_is_not",
        ),
    ),
    Mutant(
        "the environment sets options of rclone's",
        "destinations/rclone/child.py",
        "for name in _PASSED_ON if name in os.environ}",
        "for name in os.environ}",
        ("test_rclone.py::test_a_child_is_given_no_option_by_the_environment",),
    ),
    Mutant(
        "the log shows the login in an address of rclone's",
        "destinations/rclone/child.py",
        '_LOGIN.sub("//", text[:_LONGEST_LINE])',
        "text[:_LONGEST_LINE]",
        ("test_rclone.py::test_what_it_writes_into_its_log_is_bounded_cleaned_and_without_secrets",),
    ),
    Mutant(
        "a refused delivery counts as delivered",
        "catalog/rows.py",
        "AND state = 'delivered' AND digest NOT LIKE 'echo:%'",
        "AND (state = 'refused' OR digest NOT LIKE 'echo:%')",
        ("test_prune.py",),
    ),
    Mutant(
        "an error of the flush of a file is swallowed",
        "files/durable.py",
        "                os.fsync(file.fileno())\n",
        "                with suppress(OSError):\n                    os.fsync(file.fileno())\n",
        ("test_durable.py",),
    ),
    Mutant(
        "an error of the flush of a folder is swallowed",
        "files/durable.py",
        "if error.errno not in {errno.EINVAL, errno.ENOTSUP}:",
        "if not error.errno:",
        ("test_durable.py",),
    ),
    Mutant(
        "a new folder is not flushed into the one above it",
        "files/durable.py",
        "        flush_folder(new.parent)\n",
        "",
        ("test_durable.py",),
    ),
    Mutant(
        "an echo of another image's row is believed",
        "destinations/stickypi/__init__.py",
        "if len(rows) == 1 and self._api.key_of(rows[0]) == _key(image):",
        "if len(rows) == 1:",
        ("test_stickypi.py",),
    ),
    Mutant(
        "a copy is read back from what the kernel remembers",
        "destinations/directory/__init__.py",
        "        os.posix_fadvise(copy.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)\n",
        "        pass\n",
        ("test_directory.py",),
    ),
    Mutant(
        "an image is sent to a bucket without a question right before",
        "destinations/s3/__init__.py",
        "if not self._absences.take(key) and (there :=",
        "if not key and (there :=",
        ("test_s3_answers.py::test_other_bytes_under_the_key_are_a_conflict_and_never_overwritten",),
    ),
    Mutant(
        "an image is sent to a bucket whatever is there by then",
        "destinations/s3/api.py",
        'some = {UNLESS_THERE: "*"} if UNLESS_THERE not in self._dropped else {}',
        "some: dict[str, str] = {}",
        ("test_s3_answers.py::test_what_comes_between_question_and_send_is_compared_and_not_overwritten",),
    ),
    Mutant(
        "a bucket is not told the MD5 of what it is sent",
        "destinations/s3/api.py",
        '            "Content-MD5": in_base64(image.md5),\n',
        "",
        ("test_s3_answers.py::test_a_byte_that_turned_over_in_flight_gives_no_receipt",),
    ),
    Mutant(
        "whatever ETag a bucket answers with is a receipt",
        "destinations/s3/__init__.py",
        'if answer.status == 200 and api.etag_of(answer.headers.get("ETag", "")) == image.md5:',
        "if answer.status == 200:",
        ("test_s3_answers.py::test_with_etags_that_are_no_md5s_a_receipt_is_the_stores_sha256_or_an_echo",),
    ),
    Mutant(
        "a SHA-256 that a bucket gives back proves something",
        "destinations/s3/__init__.py",
        'return self.settings.checksum == "sha256" or',
        'return self.settings.checksum != "md5" or',
        ("test_s3_answers.py::test_a_sha256_that_may_only_be_what_we_said_proves_nothing",),
    ),
    Mutant(
        "the digest that stands beside an object in a bucket is believed against its ETag",
        "destinations/s3/__init__.py",
        "if stored.told == image.sha256 and not stored.has_md5 and",
        "if stored.told == image.sha256 and",
        (
            "test_s3_answers.py::test_an_object_that_says_our_digest_and_has_other_bytes_is_not_taken_for_the_image",
        ),
    ),
    Mutant(
        "what a listing of a bucket does not show counts as gone",
        "destinations/s3/__init__.py",
        "self._stored(asked if len(asked) > _FEW else (), asked)",
        "self._stored(asked, ())",
        ("test_s3.py::test_512_images_are_asked_for_with_one_listing_whether_they_are_there_or_not",),
    ),
    Mutant(
        "entities in a bucket's answer are expanded",
        "net/foreign_xml.py",
        "    parser.StartDoctypeDeclHandler = refuse\n",
        "",
        ("test_s3_answers.py::test_xml_that_is_hostile_is_no_answer_and_costs_nothing",),
    ),
    Mutant(
        "the manifest is not flushed",
        "destinations/directory/manifest.py",
        '    failpoint.hit("manifest: appended")\n    os.fsync(file.fileno())\n',
        "",
        ("test_directory.py",),
    ),
    Mutant(
        "a catalog that was not closed in order is trusted",
        "catalog/connection.py",
        "return at is None or not 0 <=",
        "return at is not None and not 0 <=",
        ("test_catalog_damage.py",),
    ),
    Mutant(
        "the row of an image that may leave the card is not checked",
        "catalog/proofs.py",
        "        self._connection.require_sound(rows)\n",
        "",
        ("test_catalog_damage.py",),
    ),
    Mutant(
        "two may change the remembered settings at once",
        "files/locks.py",
        "        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))\n",
        "",
        ("test_remote_settings.py",),
    ),
    Mutant(
        "a sweep does not look a second time",
        "spool/missing.py",
        "paths = [path for path in paths if _is_gone(storage.spool, path)]",
        "paths = list(paths)",
        ("test_ingest.py",),
    ),
    Mutant(
        "a transaction begins without the right to write",
        "catalog/connection.py",
        '"BEGIN IMMEDIATE"',
        '"BEGIN"',
        ("test_catalog.py",),
    ),
    Mutant(
        "a move into quarantine is not flushed",
        "spool/quarantine.py",
        "        durable.flush_folder(storage.quarantine)\n",
        "",
        ("test_quarantine.py::test_a_file_is_in_quarantine_and_on_the_storage_when_that_is_said",),
    ),
    Mutant(
        "the old file of a corrected image goes, whatever became of the other",
        "catalog/times.py",
        "AND (twin.gone_at IS NULL OR twin.state = 'delivered' AND {_TWIN_STATE} = 'delivered')",
        "",
        (
            "test_clock.py::test_a_picture_whose_corrected_file_vanished_undelivered_is_kept_when_its_old_file_comes_back",
        ),
    ),
    Mutant(
        "a spool without its mark is taken for that of last time",
        "spool/spool_mark.py",
        "        if not known or _marked(storage) in {known, _DAMAGED}:\n",
        "        if not known or _marked(storage) != 1:\n",
        ("test_spool_mark.py::test_no_image_of_a_disk_that_is_not_mounted_is_reported_as_lost",),
    ),
    Mutant(
        "a sweep forgets files though the disk was unmounted meanwhile",
        "spool/missing.py",
        "    spool_mark.check(storage)  # that they were looked for in the spool, and it was not unmounted meanwhile\n",
        "",
        ("test_spool_mark.py::test_a_disk_that_is_unmounted_during_a_sweep_costs_the_sweep_and_no_image",),
    ),
    Mutant(
        "a picture is stored though the disk was unmounted during the exposure",
        "pipeline.py",
        "may have been unmounted since.\n    spool_mark.check(settings.storage)\n",
        "\n",
        ("test_spool_mark.py::test_a_disk_that_is_unmounted_during_the_exposure_gets_no_picture_below",),
    ),
    Mutant(
        "the id of a spool is remembered before it is marked",
        "spool/spool_mark.py",
        "            _mark(storage, found)\n        if found != known:\n            _remember(storage, found)\n",
        "            _remember(storage, found)\n            _mark(storage, found)\n",
        ("test_spool_mark.py::test_killed_at_first_use_it_is_that_of_last_time",),
    ),
    Mutant(
        "children outlive the daemon",
        "files/parent.py",
        "    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)\n",
        "",
        ("test_worker_processes.py::test_a_camera_that_is_stuck_does_not_outlive_its_daemon",),
    ),
    Mutant(
        "a confirmation counts for years",
        "catalog/proofs.py",
        "AND confirmed_mono > :monotonic - 86400.0",
        "AND confirmed_mono > :monotonic - 864000000.0",
        ("test_confirmation.py",),
    ),
    Mutant(
        "another server under the old name is the same place",
        "catalog/places.py",
        "exactly = [key for key, its_place in same_kind if its_place == place]",
        "exactly = [key for key, its_place in same_kind]",
        ("test_places.py",),
    ),
    Mutant(
        "a proof that is found to be wrong stands",
        "destinations/confirmation.py",
        "            {image.id: reason for image, reason in asked.absent},\n",
        "            {},\n",
        ("test_confirmation.py",),
    ),
    Mutant(
        "a note beside a copy lets its image go",
        "catalog/deliveries.py",
        "when = [None] * 3 if proof.noted else _confirmed_now(clock)",
        "when = _confirmed_now(clock)",
        ("test_confirmation.py",),
    ),
    Mutant(
        "two images of one identity are sent at once",
        "pipeline.py",
        "image.place.casefold(): image for",
        "str(image.id): image for",
        ("test_stickypi.py::test_two_images_of_one_name_are_never_on_their_way_at_once",),
    ),
    Mutant(
        "an edited picture that kept its EXIF is taken for a corrected one",
        "catalog/times.py",
        "USING (boot_id, monotonic, picture)",
        "USING (boot_id, monotonic)",
        ("test_clock.py::test_an_edited_picture_that_kept_its_exif_is_another_picture_and_is_not_deleted",),
    ),
    Mutant(
        "a file that a killed prune had removed is taken back all the same",
        "spool/pruning.py",
        "(there if stat_file(spool, found.path) == found else gone).append(found.path)",
        "there.append(found.path)",
        ("test_places.py",),
    ),
    # Of the invariants of DESIGN 4 that have none above: 4, 6, 7, 8, 9 and 10.
    Mutant(
        "a damaged catalog is used on",
        "trap.py",
        "        aside = _keep_aside(path)\n",
        "        aside = path\n",
        ("test_catalog_damage.py",),
    ),
    Mutant(
        "a file that cannot be examined keeps those beside it out",
        "runtime/ingest_thread.py",
        "            self._ingest_singly(paths)\n",
        "",
        ("test_service.py", "test_ingest_thread.py"),
    ),
    Mutant(
        "an image that left the card before it was delivered is not told of",
        "status/reasons.py",
        "    if status.vanished:\n",
        "    if False:\n",
        ("test_cli.py",),
    ),
    Mutant(
        "an image taken under a clock that is not set is pending at once",
        "catalog/states.py",
        "AND {HELD} IS NOT TRUE ON CONFLICT",
        "ON CONFLICT",
        ("test_clock.py::test_images_taken_before_the_clock_is_set_are_held_and_count_as_pending",),
    ),
    Mutant(
        "other bytes of the same size and name are taken for the image",
        "destinations/directory/__init__.py",
        "            if _digest(copy) != image.sha256:\n                return False\n",
        "",
        ("test_directory.py",),
    ),
    Mutant(
        "settings that are wrong end the daemon that is told to read them",
        "runtime/service.py",
        "                config_check.check(Files(self._found.source))\n",
        "                pass\n",
        ("test_daemon.py::test_sighup_with_wrong_settings_keeps_the_old_ones_and_says_so",),
    ),
    # Each check at a door to the outside, taken out.
    Mutant(
        "an answer is unpacked without a bound",
        "net/http_answer.py",
        "unpacker.decompress(raw, largest + 1)",
        "unpacker.decompress(raw)",
        ("test_bombs.py",),
    ),
    Mutant(
        "an answer may be of any length",
        "net/http.py",
        "        if received > largest:\n",
        "        if not received:\n",
        ("test_bombs.py",),
    ),
    Mutant(
        "JSON may hold any number of values",
        "net/foreign_json.py",
        ' + text.count(b"{") > most_values:',
        ' + text.count(b"{") < 0:',
        ("test_foreign_json.py",),
    ),
    Mutant(
        "JSON may be of any depth",
        "net/foreign_json.py",
        "    if _is_deeper(content, deepest):",
        "    if _is_deeper(content, 10**4):",
        ("test_foreign_json.py",),
    ),
    Mutant(
        "half a surrogate comes in",
        "net/foreign_json.py",
        "        if _HALF.search(text):",
        "        if not text:",
        ("test_foreign_json.py",),
    ),
    Mutant(
        "the head of an answer may trickle for ever",
        "net/http.py",
        "        _deadline.check()\n",
        "",
        ("test_http.py::test_a_head_that_trickles_is_given_up",),
    ),
    Mutant(
        "a broker's packet may be of any length",
        "remote/uplink/mqtt.py",
        "if bufsize > _LARGEST_PACKET:",
        "if bufsize < 0:",
        ("test_bombs.py",),
    ),
    Mutant(
        "a broker may send what it never releases",
        "remote/uplink/mqtt.py",
        "_KIND_AND_QOS == _PUBLISH_QOS_2:",
        "_KIND_AND_QOS == -1:",
        ("test_bombs.py",),
    ),
    Mutant(
        "a value that no column holds is bound",
        "catalog/connection.py",
        "        require_storable(",
        "        list(",
        ("test_catalog.py::test_what_no_column_holds_as_it_is_never_comes_into_the_catalog",),
    ),
    Mutant(
        "JSON of a column may hold NaN",
        "catalog/rows.py",
        "json.dumps(value, allow_nan=False)",
        "json.dumps(value)",
        ("test_catalog.py::test_what_no_column_holds_as_it_is_never_comes_into_the_catalog",),
    ),
    Mutant(
        "a text from outside keeps its control characters",
        "errors.py",
        '    return _CONTROL.sub("?", text)',
        "    return text",
        ("test_clean_texts.py",),
    ),
    Mutant(
        "a record of the log may be several lines",
        "cli/common.py",
        'printable(" | ".join(',
        'str("\\n".join(',
        ("test_clean_texts.py",),
    ),
    Mutant(
        "the hub takes any heartbeat",
        "hub/fleet.py",
        "            heartbeat.read(content)\n",
        "            pass\n",
        ("test_hub_fleet.py::test_a_heartbeat_that_makes_no_sense_is_refused_and_shown",),
    ),
    Mutant(
        "why a heartbeat makes no sense is not shown",
        "net/judgement.py",
        "        if self.odd:\n",
        "        if self.odd and self.silent:\n",
        ("test_fleet.py::test_an_odd_heartbeat_costs_the_row_of_its_trap_only",),
    ),
    Mutant(
        "an unknown hemisphere is north, or east",
        "jpeg/exif/reading.py",
        "return first if first and first in letters else None",
        "return first if first and first in letters else letters[0]",
        ("test_exif.py::test_an_unknown_hemisphere_is_neither_north_nor_east",),
    ),
    Mutant(
        "a value may lie beyond its EXIF block",
        "jpeg/exif/tiff.py",
        "and end <= length",
        "and end >= 0",
        ("test_exif.py::test_a_broken_tag_costs_itself_and_not_the_date",),
    ),
    Mutant(
        "no decoder is asked about stray bytes in a header",
        "jpeg/examination.py",
        "    _ask_a_decoder(full, findings)\n",
        "",
        ("test_examination.py::test_stray_bytes_where_a_table_should_be_are_damage",),
    ),
    Mutant(
        "the folders of other systems are entered",
        "image.py",
        'name.startswith(".") or name.lower() in OTHERS_FOLDERS',
        'name.startswith(".")',
        ("test_spool_scan.py::test_a_folder_of_another_system_is_left_alone_wherever_it_lies",),
    ),
    Mutant(
        "an examiner keeps all of its rights",
        "runtime/examiner_process.py",
        "    restrict(rights)\n",
        "",
        ("test_restricted.py",),
    ),
    Mutant(
        "the camera's process keeps all of its rights",
        "runtime/camera_process.py",
        "    restricted.restrict(replace(rights, pipes=gpio.pipe_folder() if has_pins else None))\n",
        "",
        ("test_restricted.py",),
    ),
    Mutant(
        "a child keeps the files",
        "runtime/restricted.py",
        "        landlock.restrict(_rules(rights))\n",
        "        pass\n",
        ("test_restricted.py",),
    ),
    Mutant(
        "a child keeps the network and other processes",
        "runtime/restricted.py",
        "        seccomp.restrict(programs=rights.is_camera, netlink=rights.is_camera)\n",
        "        pass\n",
        ("test_restricted.py",),
    ),
    Mutant(
        "an answer of a child is unpickled as it is",
        "runtime/answers.py",
        "_Reader(io.BytesIO(content)).load()",
        "pickle.loads(content)",
        (
            "test_restricted.py",
            "test_answers.py",
        ),
    ),
    Mutant(
        "an examiner is believed about a file that it was not asked about",
        "runtime/examiners.py",
        "return image if image.path == found.path else _wrong_answer()",
        "return image",
        ("test_restricted.py",),
    ),
    Mutant(
        "a child whose rights are about what was mounted before goes on",
        "runtime/restricted.py",
        "return _NO_PERMISSION in str(error) and all(",
        "return False and all(",
        ("test_restricted.py",),
    ),
    Mutant(
        "a command's memory is open to its account",
        "cli/__init__.py",
        "    keep_memory_private()  # passwords and keys are read by most commands\n",
        "",
        ("test_private_memory.py",),
    ),
    Mutant(
        "a hub may name other keys and groups than the code",
        "remote/joining.py",
        "    if terms.fingerprint() != code.fingerprint:\n",
        "    if False:\n",
        ("test_join.py::test_a_hub_that_names_other_terms_than_the_code_is_refused_and_nothing_is_changed",),
    ),
    Mutant(
        "the same code asked again has another password",
        "cli/join.py",
        "    if not token.exists():\n",
        "    if True:\n",
        ("test_join.py",),
    ),
    Mutant(
        "the account's password goes to a hub before its terms are known",
        "remote/joining.py",
        "        read(said, code)  # before the password goes there\n",
        "        pass\n",
        ("test_join.py::test_a_hub_that_names_other_terms_than_the_code_is_refused_and_nothing_is_changed",),
    ),
    Mutant(
        "another operator's keys are replaced without a word",
        "remote/joining.py",
        "    if before and before != set(terms.keys) and not replace:\n",
        "    if False:\n",
        ("test_join.py::test_another_operators_keys_stay_unless_they_are_to_go",),
    ),
    Mutant(
        "a hub's new account is not tried",
        "remote/joining.py",
        "        link.pull(lambda _document: None)\n",
        "        pass\n",
        ("test_join.py::test_a_hub_that_is_not_there_and_one_that_does_not_let_the_account_in",),
    ),
    Mutant(
        "the config file from before is not kept",
        "cli/join.py",
        "        config_file.write_as(kept, before, now.st_uid, now.st_gid, stat.S_IMODE(now.st_mode))\n",
        "",
        ("test_join.py::test_a_trap_joins_and_its_config_has_all_of_it_and_what_was_there",),
    ),
    Mutant(
        "the hub is asked, and the settings are checked, as root",
        "cli/join.py",
        "        drop_root.step_down(state)\n        return work()\n",
        "        return work()\n",
        ("test_join.py::test_root_asks_the_hub_and_checks_the_settings_in_the_accounts_name",),
    ),
    Mutant(
        "a password for the hub can be read by root alone",
        "cli/join.py",
        "    group = drop_root.account_group(state)\n",
        "    group = 0\n",
        ("test_join.py::test_root_asks_the_hub_and_checks_the_settings_in_the_accounts_name",),
    ),
    Mutant(
        "a card's code stays on it",
        "cli/join.py",
        "        path.unlink()\n",
        "",
        ("test_join.py::test_a_prepared_card_joins_and_loses_its_file",),
    ),
    Mutant(
        "a trap's account stores images of any device",
        "hub/intake.py",
        "if not user.may_see(device):",
        "if False:",
        ("test_enrolment.py::test_a_trap_stores_and_reads_its_own_images_alone",),
    ),
    Mutant(
        "a trap's account finds images of any device",
        "hub/app.py",
        "return [key for key in keys if g.user.may_see(key[0])]",
        "return keys",
        ("test_enrolment.py::test_a_trap_stores_and_reads_its_own_images_alone",),
    ),
    Mutant(
        "a trap's account lists images of all devices",
        "hub/app.py",
        "return self._images(by_ranges(_ranges(), g.user.device), what)",
        "return self._images(by_ranges(_ranges(), None), what)",
        ("test_enrolment.py::test_a_trap_stores_and_reads_its_own_images_alone",),
    ),
    Mutant(
        "a trap's account annotates any image",
        "hub/annotations.py",
        " if user.may_see(key[0]) else None",
        "",
        ("test_enrolment.py::test_a_trap_annotates_and_reads_annotations_of_its_own_images_alone",),
    ),
    Mutant(
        "a trap's account reads every slot",
        "hub/fleet_app.py",
        "        if g.user.device:\n",
        "        if False:\n",
        ("test_enrolment.py::test_a_trap_reads_the_slots_that_are_meant_for_it",),
    ),
    Mutant(
        "anybody sends the heartbeats of a trap",
        "hub/fleet.py",
        "        require_sender(self._database, device, sender)\n",
        "",
        ("test_enrolment.py::test_nobody_but_a_trap_itself_sends_its_heartbeats",),
    ),
    Mutant(
        "a night that changed does not go to the hub again",
        "remote/uplink/reports.py",
        "held.get((line.kind, line.key)) != digest and",
        "(line.kind, line.key) not in held and",
        (
            "test_uplink_reports.py::test_a_night_that_changes_goes_again_and_takes_the_place_of_the_older_one",
        ),
    ),
    Mutant(
        "a hub that was put back to an older copy is not noticed",
        "remote/uplink/reports.py",
        "answer.hub != known.hub or answer.newest < since",
        "answer.hub != known.hub",
        (
            "test_uplink_reports.py::test_a_hub_that_was_put_back_to_an_older_copy_gets_what_it_lacks_and_no_more",
        ),
    ),
    Mutant(
        "another hub is taken for the one before",
        "remote/uplink/reports.py",
        "answer.hub != known.hub or answer.newest < since",
        "answer.newest < since",
        ("test_uplink_reports.py::test_another_hub_that_knows_the_trap_is_asked_what_it_holds",),
    ),
    Mutant(
        "reports go where the heartbeat was not taken",
        "remote/uplink/calls.py",
        "if self._call(web) and self._reporter:",
        "self._call(web)\n            if self._reporter:",
        ("test_uplink_reports.py::test_reports_follow_a_heartbeat_that_was_taken_and_no_other",),
    ),
    Mutant(
        "anybody sends the reports of a trap",
        "hub/reports.py",
        "        require_sender(self._database, device, sender)\n",
        "",
        ("test_hub_reports.py::test_nobody_but_a_trap_itself_sends_its_reports",),
    ),
    Mutant(
        "the hub stores a report whatever it says",
        "hub/reports.py",
        "                reports.decode(good[digest], device)\n",
        "",
        ("test_hub_reports.py::test_a_report_that_makes_no_sense_costs_itself_and_says_why",),
    ),
    Mutant(
        "a trap reports the deployments of another one",
        "net/reports.py",
        "device is None or own.startswith",
        "True or own.startswith",
        ("test_hub_reports.py::test_a_report_that_makes_no_sense_costs_itself_and_says_why",),
    ),
    Mutant(
        "settings on trial begin a deployment",
        "runtime/deployment_keeper.py",
        "if self._is_settled and not self._is_trial:",
        "if self._is_settled:",
        ("test_deployment.py::test_settings_that_are_rolled_back_leave_no_deployment",),
    ),
    Mutant(
        "when a deployment began is never put right",
        "runtime/clock_correction.py",
        "    catalog.deployments.correct_times()\n",
        "",
        ("test_deployments.py::test_what_began_before_the_clock_was_set_is_corrected_and_keeps_its_id",),
    ),
    Mutant(
        "each start begins a deployment",
        "catalog/deployments.py",
        "if _is_other(current, terms):",
        "if True:",
        ("test_deployments.py::test_after_a_hundred_kills_no_deployment_is_lost_and_none_is_there_twice",),
    ),
    Mutant(
        "an image of the future keeps all deployments there",
        "catalog/deployments.py",
        "min(moment.at, now.at)",
        "moment.at",
        ("test_deployments.py::test_an_id_of_the_future_does_not_keep_later_deployments_there",),
    ),
    Mutant(
        "remote settings are not tried",
        "remote/policy.py",
        "return {**tables",
        "return False and {**tables",
        ("test_deployment_settings.py::test_texts_beside_something_else_are_tried_with_it",),
    ),
    Mutant(
        "a trap that was revoked joins again with the same code",
        "hub/enrolment.py",
        'and code["made"] <= trap["ended"]:',
        "and False:",
        ("test_enrolment.py::test_one_that_was_locked_out_joins_again_with_a_later_code_only",),
    ),
    Mutant(
        "a code has no end of uses",
        "hub/enrolment.py",
        'if code["used"] >= code["uses"]:',
        "if False:",
        ("test_enrolment.py::test_a_code_is_for_so_many_traps_and_so_long",),
    ),
    Mutant(
        "a code has no end in time",
        "hub/enrolment.py",
        'if row["until"] < self._clock.wall():',
        "if False:",
        ("test_enrolment.py::test_a_code_is_for_so_many_traps_and_so_long",),
    ),
    Mutant(
        "who has a code gets the account of a trap that has joined",
        "hub/enrolment.py",
        'elif user["password_hash"] != stored:',
        "elif not stored:",
        ("test_enrolment.py::test_nobody_takes_the_account_of_a_trap_that_has_joined",),
    ),
    Mutant(
        "a slip in a code makes an account",
        "hub/enrolment.py",
        "if asked.fingerprint != Terms(**terms).fingerprint():",
        "if False:",
        ("test_enrolment.py::test_a_slip_in_the_end_of_a_code_costs_no_use_and_makes_no_account",),
    ),
    Mutant(
        "a trap that was revoked keeps its account",
        "hub/enrolment.py",
        "            connection.execute(\"DELETE FROM users WHERE name = ? AND role = 'trap'\", (device,))\n",
        "",
        ("test_enrolment.py::test_a_trap_that_was_revoked_is_a_stranger_with_its_token_of_the_day_too",),
    ),
    Mutant(
        "a link outlives the account that asked for it",
        "hub/links.py",
        "is_valid = mark == self._mark(user) and ",
        "is_valid = ",
        ("test_hub.py::test_an_address_ends_with_the_account_that_asked_for_it",),
    ),
    Mutant(
        "whoever says a name is called so",
        "fleet/audience.py",
        "trap.named < _LONG_NAMED",
        "trap.named < 0",
        ("test_fleet.py::test_a_trap_can_be_called_by_its_name",),
    ),
)


class Stale(Exception):
    """The text of a mutant is not in the program, or not once."""


def mutate(mutant: Mutant, tree: Path) -> str:
    """Put the fault into the copy of the tree; what stood in the file before."""
    path = tree / PROGRAM / mutant.file
    content = path.read_text(encoding="utf-8") if path.is_file() else ""
    if content.count(mutant.before) != 1:
        raise Stale(
            f"{mutant.file}: {content.count(mutant.before)} times {mutant.before.strip()!r} and not once: "
            "the code changed: write the pattern anew"
        )
    path.write_text(content.replace(mutant.before, mutant.after), encoding="utf-8")
    return content


def file_of(test: str, tree: Path = ROOT) -> str:
    """Where a test is: `test_prune.py::test_one` as pytest takes it, from the top of the tree."""
    name, _, one = test.partition("::")
    (path,) = (tree / "tests").rglob(name)
    return f"{path.relative_to(tree)}{'::' if one else ''}{one}"


def failing(tree: Path, tests: Iterable[str]) -> str | None:
    """The first test of these files that fails in this tree; None when all pass."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
    with tempfile.TemporaryDirectory(prefix="trapsync-bytecode-") as bytecode:  # none of an earlier fault
        environment = os.environ | {"PYTHONPATH": str(tree / "daemon"), "PYTHONPYCACHEPREFIX": bytecode}
        done = subprocess.run(
            [*command, *(str(file_of(name, tree)) for name in tests)],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode not in (0, 1):  # no tests, a mistake on the command line, an error of pytest's own
        raise RuntimeError(done.stdout + done.stderr)
    if done.returncode == 0:
        return None
    return next(
        (line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR "))), done.stdout
    )


def run(mutants: Sequence[Mutant], tell: Callable[[str], None], root: Path = ROOT) -> list[Mutant]:
    """Put each fault into a copy of the tree by itself, and tell what became of it; those that survived.

    Raises Stale for a fault that cannot be put there, and RuntimeError when the tests fail without any.
    """
    with tempfile.TemporaryDirectory(prefix="trapsync-mutants-") as name:
        tree = Path(name) / "tree"
        shutil.copytree(root, tree, ignore=WITHOUT, symlinks=True)
        for mutant in mutants:  # a stale pattern is told before an hour has passed
            (tree / PROGRAM / mutant.file).write_text(mutate(mutant, tree), encoding="utf-8")
        if test := failing(tree, sorted({test for mutant in mutants for test in mutant.tests})):
            raise RuntimeError(f"a test fails without any fault: {test}")
        survivors = [mutant for mutant in mutants if _survives(mutant, tree, tell)]
    tell(f"{len(mutants)} mutants: {len(mutants) - len(survivors)} killed, {len(survivors)} survived")
    return survivors


def _survives(mutant: Mutant, tree: Path, tell: Callable[[str], None]) -> bool:
    before = mutate(mutant, tree)
    try:
        test = failing(tree, mutant.tests)
    finally:
        (tree / PROGRAM / mutant.file).write_text(before, encoding="utf-8")
    killer = test and test.partition(" ")[2].partition(" - ")[0]
    tell(
        f"{'killed' if test else 'SURVIVED':<8}  {mutant.fault} ({mutant.file}; {killer or ', '.join(mutant.tests)})"
    )
    return test is None
