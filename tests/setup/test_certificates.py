from pathlib import Path

from setup.certificates import find_bundle


def test_the_named_bundle_goes_before_the_systems(tmp_path: Path) -> None:
    named, system = tmp_path / "named.pem", tmp_path / "system.pem"
    named.touch()
    system.touch()
    assert find_bundle({"SSL_CERT_FILE": str(named)}, [system]) == named


def test_a_named_bundle_that_is_missing_is_passed_over(tmp_path: Path) -> None:
    system = tmp_path / "system.pem"
    system.touch()
    assert find_bundle({"SSL_CERT_FILE": str(tmp_path / "gone.pem")}, [tmp_path / "absent.pem", system]) == system


def test_without_any_the_one_of_certifi_serves(tmp_path: Path) -> None:
    found = find_bundle({}, [tmp_path / "absent.pem"])
    assert found is not None
    assert found.name == "cacert.pem"
