"""Where data are on a cluster: what is understood, and which runs are refused because they would find nothing."""

import pytest

from vit_jax.errors import UserError
from vit_jax.launch import place as place_lib


@pytest.mark.parametrize('text, mount, folder', [
    ('gs://my-bucket/imagenet', '/data', '/data/imagenet'), ('gs://my-bucket', '/data', '/data'),
    ('gs://my-bucket/A/b_c/', '/data', '/data/A/b_c'), ('s3://my-bucket/x', '/data', '/data/x'),
    ('pvc:pictures/imagenet', '/data', '/data/imagenet'), ('pvc:pictures', '/data', '/data'),
    ('host:/mnt/disks/ssd', '/mnt/disks/ssd', '/mnt/disks/ssd'), ('image:/opt/data/', '/opt/data', '/opt/data'),
    ('/mnt/gcs/imagenet', '/data', '/data')])
def test_places(text, mount, folder):
  place = place_lib.parse(text)
  assert (place.mount, place.folder) == (mount, folder)
  assert str(place) == text.rstrip('/') and place_lib.parse(str(place)) == place


@pytest.mark.parametrize('text, message', [
    ('gs://BUCKET/NAME', r"'BUCKET' is no name of a bucket \(replace the name in capitals"),
    ('gs://', "'' is no name of a bucket"), ('gs://my-bucket/../x', 'between single slashes'),
    ('gs://my-bucket/a b', 'expected folders of letters'), ('data', 'expected gs://BUCKET/FOLDER'),
    ('/', 'expected gs://'),
    ('host:data', 'expected gs://BUCKET/FOLDER'), ('ftp://x/y', 'expected gs://BUCKET/FOLDER'),
    ('pvc:My_Claim', 'PersistentVolumeClaim'), ('gs://my-bucket/"; rm -rf /', 'expected folders of letters')])
def test_what_is_no_place_is_refused(text, message):
  with pytest.raises(UserError, match=message):
    place_lib.parse(text)


GS, HOST = place_lib.parse('gs://my-bucket/d'), place_lib.parse('host:/mnt/d')


@pytest.mark.parametrize('source, given, place, expected', [
    ('digits', None, None, None), ('random:1_000', None, None, None), ('digits', None, GS, None),
    ('tfds:imagenet2012', None, GS, '/data/d'), ('fashion_mnist', None, GS, '/data/d'),
    ('folder:x', '/old', GS, '/data/d'),
    ('folder:gs://other-bucket/e', None, None, None), ('pairs:gs://other-bucket/e', None, GS, None),
    ('csv:/mnt/d/labels.csv', None, HOST, None), ('csv:labels.csv', None, HOST, '/mnt/d'),
    ('folder:/data/d/pictures', None, GS, None), ('folder:/mnt/d', None, HOST, None),
    ('idx:/mnt/d/x', None, HOST, None)])
def test_the_data_dir_of_a_run_on_the_hosts(source, given, place, expected):
  assert place_lib.data_dir(source, given, place) == expected


@pytest.mark.parametrize('source, given, place, message', [
    ('tfds:imagenet2012', None, None, 'no data reach the hosts. Say where the data are: --data_dir=gs://BUCKET'),
    ('folder:/data/mine', None, None, 'The hosts do not have /data/mine of this machine'),
    ('fashion_mnist', '/usr/share/x', None, 'The hosts do not have /usr/share/x'),
    ('tfds:imagenet2012', 'gs://other-bucket/e', None, 'reach the hosts. --data_dir=gs://other-bucket/e mounts'),
    ('folder:s3://other-bucket/e', None, None, 'no data reach the hosts. --data_dir=s3://other-bucket/e mounts'),
    ('folder:s3://other-bucket/e', None, GS, 'Write folder:FOLDER, which is looked up in --data_dir'),
    ('csv:/home/me/labels.csv', None, GS, 'the hosts see gs://my-bucket/d at /data, .* Write csv:labels.csv'),
    ('folder:/home/me/pictures', None, GS, 'the hosts see gs://my-bucket/d at /data, .* Write folder:pictures'),
    ('folder:~/pictures', None, HOST, 'the hosts see host:/mnt/d at /mnt/d')])
def test_a_run_whose_data_cannot_be_there_is_refused(source, given, place, message):
  with pytest.raises(UserError, match=message):
    place_lib.data_dir(source, given, place)


@pytest.mark.parametrize('path', ['/home/me/run', 'runs/teacher', './w.npz', '~/w.npz'])
def test_weights_of_this_machine_are_refused(path):
  with pytest.raises(UserError, match='distill.teacher=.*a path of this machine, which the hosts do not have'):
    place_lib.check_file('distill.teacher', path, GS)


@pytest.mark.parametrize('source, place, in_image, expected', [
    ('digits', 'pvc:pictures', False, True), ('tfds:x', None, False, True), ('tfds:x', 'gs://my-bucket/d', True, False),
    ('folder:x', 'gs://my-bucket/d', False, True), ('csv:x.csv', 's3://my-bucket/d', False, True),
    ('idx:x', 's3://my-bucket/d', False, False), ('folder:x', 'pvc:pictures', True, False),
    ('folder:x', 'image:/opt/d', True, True), ('folder:x', 'image:/opt/d', False, False),
    ('tfds:x', 'host:/tmp', False, True), ('tfds:x', 'host:/not/here', False, False), ('tfds:x', '/tmp', False, True)])
def test_what_can_be_tried_from_here(source, place, in_image, expected):
  assert place_lib.found_from(source, place and place_lib.parse(place), in_image) == expected


def test_weights_in_a_store_without_run_folders_are_refused():
  with pytest.raises(UserError, match='pretrained.path=s3://my-bucket/run: checkpoints are kept on disks and in Cloud'):
    place_lib.check_file('pretrained.path', 's3://my-bucket/run', GS)


@pytest.mark.parametrize('path', [None, 'hf:google/vit', 'gs://my-bucket/w', '/data/w.npz'])
def test_weights_that_hosts_can_reach(path):
  place_lib.check_file('pretrained.path', path, GS)


@pytest.mark.parametrize('workdir', [None, '', 'runs/law', '/mnt/law', 's3://my-bucket/law', 'gs://my-bucket/*',
                                     'gs://my-bucket/../law', 'gs://my-bucket/a\n', 'GS://my-bucket'])
def test_a_workdir_that_not_all_hosts_can_write_to(workdir):
  with pytest.raises(UserError, match=f'--workdir={workdir or ""}'.replace('*', r'\*')):
    place_lib.check_bucket(workdir or '', '--workdir', ('gs',))


@pytest.mark.parametrize('workdir', ['gs://bucket', 'gs://my-bucket.example/', 'gs://bucket/Law/v1.2_b/lr=0.1+x/'])
def test_bucket_paths(workdir):
  assert place_lib.check_bucket(workdir, '--workdir', ('gs',)) == workdir
