# A page that names all instances of the cluster, and something to do when it has changed.
/srv/site:
  file.directory:
    - mode: '0755'

/srv/site/index.html:
  file.managed:
    - source: salt://site/index.html.jinja
    - template: jinja
    - mode: '0644'
    - require: [{file: /srv/site}]

published:
  cmd.run:
    - name: date -u +%FT%TZ >> /srv/site/published
    - onchanges: [{file: /srv/site/index.html}]
